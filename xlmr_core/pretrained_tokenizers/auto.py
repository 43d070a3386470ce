"""`AutoTokenizer`: the tokenizer class that a model directory asks for."""

from os import PathLike
from pathlib import Path
from typing import Any

from xlmr_core.checkpoint import layout
from xlmr_core.errors import ArgumentError, CheckpointError
from xlmr_core.pretrained_tokenizers.base import PreTrainedTokenizer
from xlmr_core.pretrained_tokenizers.files import directory_of
from xlmr_core.pretrained_tokenizers.roberta import RobertaTokenizer, RobertaTokenizerFast
from xlmr_core.pretrained_tokenizers.xlm_roberta import XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.tokenization.loading import read_tokenizer_config

# The kinds of a class: transformers' Python one, and the one in Rust.
_XLMR = (XLMRobertaTokenizer, XLMRobertaTokenizerFast)
_ROBERTA = (RobertaTokenizer, RobertaTokenizerFast)
_CLASSES: dict[str, tuple[type[PreTrainedTokenizer], type[PreTrainedTokenizer]]] = {
    "XLMRobertaTokenizer": _XLMR,
    "RobertaTokenizer": _ROBERTA,
}
_MODEL_TYPES = {"xlm-roberta": _XLMR, "xlm-roberta-xl": _XLMR, "roberta": _ROBERTA}
# Names that say nothing but that there is a tokenizer.json.
_ANY = {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"}


class AutoTokenizer:
    """Not to be made: `AutoTokenizer.from_pretrained` gives one of the tokenizers."""

    def __init__(self) -> None:
        raise ArgumentError("AutoTokenizer is made by AutoTokenizer.from_pretrained(directory or Hub id)")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | PathLike[str], *, use_fast: bool = True, **kwargs: Any
    ) -> Any:
        """The tokenizer of a model directory, `mini` or a Hub id.

        `tokenizer_class` of `tokenizer_config.json` decides, then that of `config.json`, then its `model_type`, then
        the files that are there.

        Args:
            pretrained_model_name_or_path: Where it is.
            use_fast: Whether the class is the one called `...Fast`; both give the same tokens.
            kwargs: As `from_pretrained` of that class takes them.

        Raises:
            CheckpointError: No tokenizer there, or one of another family, which is named.
        """
        located = {name: kwargs[name] for name in ("revision", "subfolder") if name in kwargs}
        directory = directory_of(pretrained_model_name_or_path, **located)
        kinds = _kinds(directory, str(pretrained_model_name_or_path))
        return kinds[bool(use_fast)].from_pretrained(pretrained_model_name_or_path, **kwargs)


def _kinds(directory: Path, name: str) -> tuple[type[PreTrainedTokenizer], type[PreTrainedTokenizer]]:
    config = layout.read_json_if_any(directory / layout.CONFIG)
    asked = read_tokenizer_config(directory).get("tokenizer_class") or config.get("tokenizer_class")
    if asked and asked not in _ANY:
        kinds = _CLASSES.get(str(asked).removesuffix("Fast"))
        if kinds is None:
            raise CheckpointError(
                f"tokenizer of {name} is a {asked}, known are {', '.join(_CLASSES)}; use another checkpoint"
            )
        return kinds
    if (directory / "sentencepiece.bpe.model").is_file():
        return _XLMR
    if (directory / "vocab.json").is_file():
        return _ROBERTA
    model_type = config.get("model_type")
    if model_type not in _MODEL_TYPES and model_type is not None and not asked:
        raise CheckpointError(
            f"tokenizer of {name} belongs to model_type {model_type!r}, known are {', '.join(_MODEL_TYPES)}; "
            "use another checkpoint"
        )
    return _MODEL_TYPES.get(str(model_type), _XLMR)
