"""The documented tokenizers of XLM-RoBERTa: `XLMRobertaTokenizer` and `XLMRobertaTokenizerFast`."""

import math
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from xlmr_core.errors import ArgumentError
from xlmr_core.pretrained_tokenizers.base import PreTrainedTokenizer
from xlmr_core.pretrained_tokenizers.files import component_types, with_prefix
from xlmr_core.pretrained_tokenizers.special_tokens import Token
from xlmr_core.tokenization.sampling import unigram_sampler

_SAMPLING = {"enable_sampling": False, "nbest_size": -1, "alpha": 0.1}


class XLMRobertaTokenizer(PreTrainedTokenizer):
    """XLM-R's tokenizer: unigram pieces of SentencePiece, ids shifted as in fairseq.

    A sequence is `<s> X </s>`, a pair `<s> A </s></s> B </s>`. `<mask>` takes the blank on its left.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "vocab_file": "sentencepiece.bpe.model",
        "tokenizer_file": "tokenizer.json",
    }
    kept_parameters: ClassVar[tuple[str, ...]] = ("sp_model_kwargs",)

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None,
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        mask_token: Token = "<mask>",
        sp_model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reads the vocabulary.

        Args:
            vocab_file: A SentencePiece model; None with `tokenizer_file=`, a `tokenizer.json`.
            bos_token: The beginning of a sequence in pre-training; texts are framed by `cls_token`.
            eos_token: The end of a sequence; texts are framed by `sep_token`.
            sep_token: Ends a text, and stands twice between two.
            cls_token: The first token of a sequence.
            unk_token: What unknown pieces become.
            pad_token: Fills the texts of a batch.
            mask_token: What is to be predicted.
            sp_model_kwargs: `enable_sampling` draws another segmentation each time, from the `nbest_size` best ones or
                from all if that is below 0, with probabilities smoothed by `alpha`; `nbest_size` 0 or 1 draws nothing.
            kwargs: `tokenizer_file`, `model_max_length`, `padding_side`, `truncation_side`, `model_input_names`,
                `additional_special_tokens`, `clean_up_tokenization_spaces`, `split_special_tokens`.

        Raises:
            CheckpointError: A file that cannot be read.
            ArgumentError: No file, unknown or wrong arguments.
        """
        tokenizer_file = kwargs.pop("tokenizer_file", None)
        tokens = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "sep_token": sep_token,
            "cls_token": cls_token,
            "unk_token": unk_token,
            "pad_token": pad_token,
            "mask_token": mask_token,
        }
        self.sp_model_kwargs = _checked_sampling(sp_model_kwargs)
        files = {"pieces": vocab_file, "whole": tokenizer_file}
        self._pieces = vocab_file
        super().__init__({name: None if path is None else Path(path) for name, path in files.items()}, tokens, kwargs)
        asked = _SAMPLING | self.sp_model_kwargs
        if asked["enable_sampling"] and asked["nbest_size"] not in (0, 1):
            self._sampler = unigram_sampler(self._library, nbest_size=asked["nbest_size"], alpha=asked["alpha"])
            if self._sampler is None:
                raise ArgumentError("enable_sampling=True, the tokenizer is no unigram model; leave it out")

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copies the SentencePiece model the tokenizer came from.

        Returns:
            The path written.

        Raises:
            ArgumentError: It came from a `tokenizer.json` alone, or `save_directory` is no directory.
        """
        target = Path(save_directory) / with_prefix(self.vocab_files_names["vocab_file"], filename_prefix)
        if not target.parent.is_dir():
            raise ArgumentError(f"save_directory {save_directory} is no directory, it must be one; make it first")
        if self._pieces is None or not Path(self._pieces).is_file():
            raise ArgumentError(
                "the tokenizer came from a tokenizer.json alone, there is no SentencePiece model to copy; "
                "save_pretrained writes all of it"
            )
        if not (target.exists() and target.samefile(self._pieces)):
            shutil.copyfile(self._pieces, target)
        return (str(target),)

    def _is_standard(self) -> bool:
        parts = component_types(self._library)
        return parts["pre_tokenizer"] == _SPLITTER and parts["normalizer"] in (None, {"type": "Precompiled"})


class XLMRobertaTokenizerFast(XLMRobertaTokenizer):
    """The same tokenizer; the name and the order of arguments are those of transformers' tokenizer in Rust."""

    is_fast: ClassVar[bool] = True

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        tokenizer_file: str | PathLike[str] | None = None,
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        mask_token: Token = "<mask>",
        **kwargs: Any,
    ) -> None:
        """Reads the vocabulary; see `XLMRobertaTokenizer` for the arguments."""
        super().__init__(
            vocab_file,
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            cls_token=cls_token,
            unk_token=unk_token,
            pad_token=pad_token,
            mask_token=mask_token,
            tokenizer_file=tokenizer_file,
            **kwargs,
        )


# What transformers' class builds around the vocabulary; of normalisers it takes over a character map alone.
_SPLITTER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    ],
}


def _checked_sampling(asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of sampling.

    Raises:
        ArgumentError: Others, or values that are none.
    """
    given = dict(asked or {})
    problems = []
    unknown = sorted(given.keys() - _SAMPLING.keys())
    if unknown:
        problems.append(f"sp_model_kwargs has {', '.join(unknown)}; known are {', '.join(_SAMPLING)}")
    values = _SAMPLING | given
    if not isinstance(values["enable_sampling"], bool):
        problems.append(f"enable_sampling {values['enable_sampling']!r}, it must be True or False")
    if type(values["nbest_size"]) is not int:
        problems.append(f"nbest_size {values['nbest_size']!r}, it must be a whole number")
    if (
        isinstance(values["alpha"], bool)
        or not isinstance(values["alpha"], (int, float))
        or not 0 <= values["alpha"] < math.inf
    ):
        problems.append(f"alpha {values['alpha']!r}, it must be a number from 0 on")
    if problems:
        raise ArgumentError("\n".join(problems))
    return given
