"""The documented tokenizers of RoBERTa: `RobertaTokenizer` and `RobertaTokenizerFast`."""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from xlmr_core.errors import ArgumentError, CheckpointError, InputError
from xlmr_core.pretrained_tokenizers.base import PreTrainedTokenizer
from xlmr_core.pretrained_tokenizers.files import component_types
from xlmr_core.pretrained_tokenizers.options import CallOptions
from xlmr_core.pretrained_tokenizers.special_tokens import Token
from xlmr_core.tokenization.byte_level import byte_level_options, set_byte_level, tokens_to_bytes


class RobertaTokenizer(PreTrainedTokenizer):
    """RoBERTa's tokenizer: byte pairs over bytes, blanks are part of the word behind them.

    So a word has other tokens at the beginning of a text than behind a blank, unless `add_prefix_space` is set, here or
    in a call. With `is_split_into_words=True` every word gets a blank. A sequence is `<s> X </s>`, a pair
    `<s> A </s></s> B </s>`. `<mask>` takes the blank on its left.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "vocab_file": "vocab.json",
        "merges_file": "merges.txt",
        "tokenizer_file": "tokenizer.json",
    }
    kept_parameters: ClassVar[tuple[str, ...]] = ("errors", "add_prefix_space", "trim_offsets")

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None,
        merges_file: str | PathLike[str] | None,
        errors: str = "replace",
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        mask_token: Token = "<mask>",
        add_prefix_space: bool = False,
        **kwargs: Any,
    ) -> None:
        """Reads the vocabulary.

        Args:
            vocab_file: Ids by token, JSON; None with `tokenizer_file=`, a `tokenizer.json`.
            merges_file: The merges, in their order.
            errors: What decoding does with bytes that are no UTF-8, as in `bytes.decode`: "replace", "strict" (an
                InputError), "ignore" and others.
            bos_token: The beginning of a sequence in pre-training; texts are framed by `cls_token`.
            eos_token: The end of a sequence; texts are framed by `sep_token`.
            sep_token: Ends a text, and stands twice between two.
            cls_token: The first token of a sequence.
            unk_token: What unknown pieces become.
            pad_token: Fills the texts of a batch.
            mask_token: What is to be predicted.
            add_prefix_space: Whether a text that begins with no blank gets one.
            kwargs: `tokenizer_file`, `trim_offsets`, `model_max_length`, `padding_side`, `truncation_side`,
                `model_input_names`, `additional_special_tokens`, `clean_up_tokenization_spaces`,
                `split_special_tokens`.

        Raises:
            CheckpointError: A file that cannot be read.
            ArgumentError: No file, unknown or wrong arguments.
        """
        self.errors = "replace" if errors is None else errors
        _check(self.errors, add_prefix_space, kwargs.get("trim_offsets"))
        self._asked = (add_prefix_space, kwargs.pop("trim_offsets", None))
        files = {"vocabulary": vocab_file, "merges": merges_file, "whole": kwargs.pop("tokenizer_file", None)}
        tokens = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "sep_token": sep_token,
            "cls_token": cls_token,
            "unk_token": unk_token,
            "pad_token": pad_token,
            "mask_token": mask_token,
        }
        super().__init__({name: None if path is None else Path(path) for name, path in files.items()}, tokens, kwargs)

    def _frame(self, where: Path, *, reset: bool) -> None:
        """Splits and frames as asked; what nobody asked for stays as a `tokenizer.json` has it."""
        super()._frame(where, reset=reset)
        present = byte_level_options(self._library)
        prefix, trim = self._asked
        if present is None and (prefix or trim is False):
            raise CheckpointError(
                f"tokenizer of {where} is not built like RoBERTa's, add_prefix_space and trim_offsets cannot be set; "
                "leave them out"
            )
        if present is not None:
            wanted = (present[0] if prefix is None else prefix, present[1] if trim is None else trim)
            if wanted != present:
                self._set_byte_level(wanted)
        # Read from the library once: each reading costs as much as a short text.
        self._byte_level = byte_level_options(self._library)

    def _set_frame(self, cls: int, sep: int) -> None:
        set_byte_level(
            self._library, cls, sep, add_prefix_space=bool(self._asked[0]), trim_offsets=self._asked[1] is not False
        )

    def _set_byte_level(self, wanted: tuple[bool, bool]) -> None:
        frame = self._library.post_processor
        set_byte_level(self._library, frame.cls[1], frame.sep[1], add_prefix_space=wanted[0], trim_offsets=wanted[1])

    @property
    def add_prefix_space(self) -> bool:
        """Whether a text that begins with no blank gets one."""
        return self._byte_level is not None and self._byte_level[0]

    @property
    def trim_offsets(self) -> bool:
        """Whether the blanks at a token's edges are left out of its offsets."""
        return self._byte_level is None or self._byte_level[1]

    def _prepared(self, options: CallOptions) -> CallOptions:
        options.check(takes_prefix_space=self._byte_level is not None)
        if options.is_split_into_words and not self.add_prefix_space and options.add_prefix_space is None:
            return self._words_with_blanks(options)
        return options

    def _words_with_blanks(self, options: CallOptions) -> CallOptions:
        return replace(options, add_prefix_space=True)

    def _text_of(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        if self.errors == "replace":
            return super()._text_of(ids, skip_special_tokens=skip_special_tokens)
        tokens = self.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens)
        return self.convert_tokens_to_string([token for token in tokens if token is not None])

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Text again of tokens as the vocabulary writes them.

        Raises:
            InputError: Bytes that are no UTF-8, with `errors="strict"`.
        """
        if self.errors == "replace":
            return super().convert_tokens_to_string(tokens)
        try:
            return tokens_to_bytes(tokens).decode("utf-8", self.errors)
        except UnicodeDecodeError as error:
            raise InputError(
                f"tokens are no valid UTF-8 at byte {error.start}, errors='strict' refuses them; use errors='replace'",
                code="not_utf8",
            ) from error

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes `vocab.json` and `merges.txt`; their paths."""
        if not Path(save_directory).is_dir():
            raise ArgumentError(f"save_directory {save_directory} is no directory, it must be one; make it first")
        return tuple(self._library.model.save(str(save_directory), filename_prefix))

    def _is_standard(self) -> bool:
        parts = component_types(self._library)
        splitter = parts["pre_tokenizer"] or {}
        byte_level = splitter.get("type") == "ByteLevel" and splitter["use_regex"] is True
        return byte_level and parts["normalizer"] is None


class RobertaTokenizerFast(RobertaTokenizer):
    """The same tokenizer; names, order and rules of arguments are those of transformers' tokenizer in Rust.

    With `is_split_into_words=True` it must have been made with `add_prefix_space=True`.
    """

    is_fast: ClassVar[bool] = True

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        merges_file: str | PathLike[str] | None = None,
        tokenizer_file: str | PathLike[str] | None = None,
        errors: str = "replace",
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        mask_token: Token = "<mask>",
        add_prefix_space: bool = False,
        trim_offsets: bool = True,
        **kwargs: Any,
    ) -> None:
        """Reads the vocabulary; see `RobertaTokenizer` for the arguments.

        `trim_offsets` leaves the blanks at a token's edges out of its offsets.
        """
        super().__init__(
            vocab_file,
            merges_file,
            errors=errors,
            bos_token=bos_token,
            eos_token=eos_token,
            sep_token=sep_token,
            cls_token=cls_token,
            unk_token=unk_token,
            pad_token=pad_token,
            mask_token=mask_token,
            add_prefix_space=add_prefix_space,
            tokenizer_file=tokenizer_file,
            trim_offsets=trim_offsets,
            **kwargs,
        )

    def _words_with_blanks(self, options: CallOptions) -> CallOptions:
        raise ArgumentError(
            f"is_split_into_words=True, {type(self).__name__} must be made with add_prefix_space=True for it, so that "
            "every word gets its blank; or use RobertaTokenizer"
        )


def _check(errors: object, add_prefix_space: object, trim_offsets: object) -> None:
    problems = []
    try:
        codecs.lookup_error(errors)  # type: ignore[arg-type]
    except (LookupError, TypeError):
        problems.append(f"errors {errors!r}, it must be 'replace', 'strict', 'ignore' or another name of bytes.decode")
    for name, value in (("add_prefix_space", add_prefix_space), ("trim_offsets", trim_offsets)):
        if not isinstance(value, bool | None):
            problems.append(f"{name} {value!r}, it must be True or False")
    if problems:
        raise ArgumentError("\n".join(problems))
