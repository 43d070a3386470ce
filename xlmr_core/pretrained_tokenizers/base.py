"""What all documented tokenizers do: text to model inputs and back.

Every algorithm (normalising, cutting into pieces, truncation, padding, overflow, offsets) is the library's; here are
the names, forms and checks of transformers' tokenizers around it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers

from xlmr_core.errors import ArgumentError
from xlmr_core.pretrained_tokenizers.batch_encoding import BatchEncoding
from xlmr_core.pretrained_tokenizers.constructing import COMMON, common_options, sources_of
from xlmr_core.pretrained_tokenizers.files import stored_arguments, write_tokenizer
from xlmr_core.pretrained_tokenizers.options import CallOptions
from xlmr_core.pretrained_tokenizers.padding import as_columns, pad_columns
from xlmr_core.pretrained_tokenizers.special_tokens import EXTRA, ROLES, Token, checked_extra, register
from xlmr_core.pretrained_tokenizers.texts import encode_rows, read_rows
from xlmr_core.pretrained_tokenizers.view import Settings, view
from xlmr_core.pretrained_tokenizers.vocabulary import Vocabulary
from xlmr_core.tokenization.loading import (
    add_stored_tokens,
    frame_of,
    is_length,
    other_frame,
    read_library,
)
from xlmr_core.tokenization.sampling import Sampler
from xlmr_core.tokenization.sentencepiece import set_frame

_log = logging.getLogger(__name__)

# What a column reads of the library's encodings.
_READ: Mapping[str, Callable[[tokenizers.Encoding], Any]] = {
    "input_ids": attrgetter("ids"),
    "token_type_ids": attrgetter("type_ids"),
    "attention_mask": attrgetter("attention_mask"),
    "special_tokens_mask": attrgetter("special_tokens_mask"),
    "offset_mapping": attrgetter("offsets"),
    "length": len,
}


class PreTrainedTokenizer(Vocabulary):
    """A tokenizer with the methods of transformers; safe for threads as long as none adds tokens.

    Attributes:
        model_max_length: Tokens the model takes, 1e30 for no statement.
        padding_side: "right" or "left", settable like all of these.
        truncation_side: "right" or "left".
        model_input_names: What a call answers when nothing else is asked for.
        clean_up_tokenization_spaces: Whether decoding removes blanks before punctuation.
        split_special_tokens: Whether special tokens written in a text are text.
        name_or_path: Where it came from.
        is_fast: What transformers 4 says of the class; both kinds are one implementation here.
    """

    is_fast: ClassVar[bool] = False
    vocab_files_names: ClassVar[Mapping[str, str]] = {}
    # Parameters of the class that `tokenizer_config.json` keeps.
    kept_parameters: ClassVar[tuple[str, ...]] = ()

    model_max_length: int
    padding_side: str
    truncation_side: str
    model_input_names: list[str]
    clean_up_tokenization_spaces: bool
    split_special_tokens: bool
    name_or_path: str
    _sampler: Sampler | None = None

    def __init__(
        self, files: Mapping[str, Path | None], tokens: Mapping[str, Token | None], options: Mapping[str, Any]
    ) -> None:
        """For the classes: reads the files, gives the tokens their roles and sees to the frame.

        Args:
            files: By their names in `TokenizerSources`.
            tokens: By role.
            options: What a constructor takes besides.

        Raises:
            ArgumentError: No files; unknown or wrong options, all of them.
            CheckpointError: Files that cannot be read, or of another family.
        """
        values = common_options(options)
        extra = checked_extra(next((options[name] for name in EXTRA if options.get(name)), None))
        sources = sources_of(files, type(self).__name__)
        self._library = read_library(sources)
        where = next(path for path in files.values() if path is not None)
        add_stored_tokens(self._library, options, where)
        register(self._library, tokens, extra)
        self._role_tokens = {role: None if (token := tokens.get(role)) is None else str(token) for role in ROLES}
        self._extra_tokens = [str(token) for token in extra]
        self._warned = False
        for name, value in values.items():
            setattr(self, name, value)
        self._frame(where, reset=sources.whole is None)

    def _frame(self, where: Path, *, reset: bool) -> None:
        """Sees to it that texts are framed by `cls_token` and `sep_token`."""
        cls, sep = self.cls_token, self.sep_token
        if cls is None or sep is None:
            raise ArgumentError("cls_token or sep_token is None, both frame a text; name them")
        bos, eos = self._library.token_to_id(cls), self._library.token_to_id(sep)
        assert bos is not None
        assert eos is not None
        found = frame_of(self._library, bos, eos)
        if found == "other" and not reset:
            raise other_frame(self._library, bos, eos, where)
        if found != "ours":
            self._set_frame(bos, eos)

    def _set_frame(self, cls: int, sep: int) -> None:
        set_frame(self._library, cls, sep)

    # Reading and writing

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any) -> Self:
        """Reads a tokenizer from a model directory, `mini`, a Hub id `org/name[@revision]`, or one of its files.

        Args:
            pretrained_model_name_or_path: Where it is.
            kwargs: Parameters of the class, instead of what `tokenizer_config.json` says; `revision` and `subfolder`
                of a Hub repository.

        Raises:
            CheckpointError: Nothing there that can be read, or a tokenizer of another family.
            ArgumentError: Unknown or wrong parameters.
        """
        arguments = stored_arguments(pretrained_model_name_or_path, cls.vocab_files_names, cls.kept_parameters, kwargs)
        return cls(**arguments)

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
    ) -> tuple[str, ...]:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which transformers opens too.

        Args:
            save_directory: Made if need be.
            legacy_format: Whether to write the vocabulary files too.
            filename_prefix: Written before each name, with a hyphen.
            push_to_hub: Not offered.

        Returns:
            The paths written.
        """
        if push_to_hub:
            raise ArgumentError("push_to_hub=True, nothing is uploaded from here; use `hf upload DIRECTORY`")
        written = write_tokenizer(self._library, self._config(), Path(save_directory), filename_prefix)
        return written + (self.save_vocabulary(str(save_directory), filename_prefix) if legacy_format else ())

    def _config(self) -> dict[str, Any]:
        """What `tokenizer_config.json` says.

        The class is named only where transformers builds the same tokenizer from the class's vocabulary; it reads the
        file as it is otherwise.
        """
        name = type(self).__name__.removesuffix("Fast")
        kept = {key: value for key in self.kept_parameters if (value := getattr(self, key)) is not None}
        common = {key: getattr(self, key) for key in COMMON if key != "name_or_path"}
        extra = {EXTRA[1]: self._extra_tokens} if self._extra_tokens else {}
        return {
            **common,
            **self.special_tokens_map,
            **kept,
            **extra,
            "tokenizer_class": name if self._is_standard() else "PreTrainedTokenizerFast",
        }

    def _is_standard(self) -> bool:
        """Whether transformers' class of this name has the same parts."""
        raise NotImplementedError

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes the vocabulary files of the class; the paths written."""
        raise NotImplementedError

    # Text to ids

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Tokenises a text, or many, alone or in pairs.

        Args:
            text: A string or a list of strings; with `is_split_into_words` a list of words or a list of such lists.
            text_pair: The second texts, in the form of `text`.
            text_target: Texts whose ids become `labels`; alone, they are treated as `text`.
            text_pair_target: The second texts of those.
            add_special_tokens: Whether `<s>` and `</s>` frame the texts.
            padding: True or "longest" fills up to the longest text, "max_length" up to `max_length`.
            truncation: True or "longest_first" cuts the longer text of a pair first; "only_first", "only_second".
            max_length: In tokens, special ones included; None means `model_max_length`.
            stride: With `return_overflowing_tokens`, tokens that consecutive pieces of a text share.
            is_split_into_words: Whether texts are lists of words.
            pad_to_multiple_of: Padded lengths are rounded up to it.
            padding_side: "right" or "left" instead of the tokenizer's own.
            return_tensors: "pt" or "np"; None gives lists.
            return_token_type_ids: Whether zeros are returned for each token.
            return_attention_mask: 1 for tokens, 0 for padding; None means if `model_input_names` has it.
            return_overflowing_tokens: Whether what was cut off is returned as more rows, `overflow_to_sample_mapping`
                says of which text.
            return_special_tokens_mask: 1 for special tokens.
            return_offsets_mapping: Where tokens stand in their text, `(start, end)` in code points.
            return_length: The number of tokens.
            verbose: Whether to log that a text is longer than the model takes.
            kwargs: `split_special_tokens`; for RoBERTa `add_prefix_space`.

        Returns:
            Lists, or tensors (B, T), by name: of one text without a batch unless tensors or overflow are asked for.

        Raises:
            ArgumentError: Unknown or wrong arguments, all of them.
            InputError: A text that is none, by its row.
        """
        named = {name: kwargs.pop(name) for name in ("split_special_tokens", "add_prefix_space") if name in kwargs}
        options = CallOptions(
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            is_split_into_words=is_split_into_words,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_tensors=return_tensors,
            return_token_type_ids=return_token_type_ids,
            return_attention_mask=return_attention_mask,
            return_overflowing_tokens=return_overflowing_tokens,
            return_special_tokens_mask=return_special_tokens_mask,
            return_offsets_mapping=return_offsets_mapping,
            return_length=return_length,
            verbose=verbose,
            extra=kwargs,
            **named,
        )
        options = self._prepared(options)
        if text is None and text_target is None:
            raise ArgumentError("text is None and so is text_target, one of them is needed")
        encoded = self._encoded(text, text_pair, options) if text is not None else None
        if text_target is None:
            assert encoded is not None
            return encoded
        target = self._encoded(text_target, text_pair_target, options)
        if encoded is None:
            return target
        encoded["labels"] = target["input_ids"]
        return encoded

    def _prepared(self, options: CallOptions) -> CallOptions:
        """Checks the options of a call; classes may fill in their own."""
        options.check(takes_prefix_space=False)
        return options

    def _encoded(self, text: Any, text_pair: Any, options: CallOptions) -> BatchEncoding:
        texts = read_rows(text, text_pair, words=options.is_split_into_words)
        library = view(self._library, self._settings(options, paired=texts.paired), self._sampler)
        found = encode_rows(library, texts, add_special_tokens=options.add_special_tokens)
        parts = [[one, *one.overflowing] if options.return_overflowing_tokens else [one] for one in found]
        encodings = [one for part in parts for one in part]
        columns = self._columns(encodings, options)
        if options.return_overflowing_tokens:
            columns["overflow_to_sample_mapping"] = [row for row, part in enumerate(parts) for _ in part]
        self._tell_of_long(columns["input_ids"], options)
        if not texts.batched and options.return_tensors is None and not options.return_overflowing_tokens:
            columns = {name: column[0] if isinstance(column[0], list) else column for name, column in columns.items()}
        return BatchEncoding(columns, encodings, options.return_tensors)

    def _settings(self, options: CallOptions, *, paired: bool) -> Settings:
        return options.settings(
            limit=self.model_max_length if is_length(self.model_max_length) else None,
            n_special=self.num_special_tokens_to_add(paired) if options.add_special_tokens else 0,
            sides=(self.truncation_side, self.padding_side),
            pad=(self.pad_token, self.pad_token_id),
            splits_special_tokens=self.split_special_tokens,
        )

    def _columns(self, encodings: list[tokenizers.Encoding], options: CallOptions) -> dict[str, Any]:
        asked = {
            "input_ids": True,
            "token_type_ids": options.return_token_type_ids,
            "attention_mask": options.return_attention_mask,
            "special_tokens_mask": options.return_special_tokens_mask,
            "offset_mapping": options.return_offsets_mapping,
            "length": options.return_length,
        }
        wanted = [name for name, said in asked.items() if (name in self.model_input_names if said is None else said)]
        return {name: list(map(_READ[name], encodings)) for name in wanted}

    def _tell_of_long(self, rows: list[list[int]], options: CallOptions) -> None:
        """Once: the model cannot read what it is given."""
        if self._warned or options.max_length is not None or not options.verbose:
            return
        longest = max(map(len, rows), default=0)
        if longest > self.model_max_length > 0:
            self._warned = True
            _log.warning("a text has %d tokens, the model takes %d; truncate it", longest, self.model_max_length)

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """The ids of one text or pair; `options` are those of a call."""
        return self(text, text_pair, **options)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        """A call for one text or pair; transformers' older name."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """A call for a list of texts or of pairs; transformers' older name."""
        return self(batch_text_or_text_pairs, **options)

    def tokenize(self, text: Any, pair: Any = None, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """The tokens of one text or pair, as the vocabulary writes them."""
        return self(text, pair, add_special_tokens=add_special_tokens, **options).tokens()

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Makes a batch of encodings; the way of data collators. A call with `padding=True` is faster.

        Args:
            encoded_inputs: An encoding, or a list of encodings of single texts. Ids, attention mask, token types and
                special tokens mask are filled up, all else stays as it is.
            padding: As in a call, like the other arguments.
            max_length: For `padding="max_length"`.
            pad_to_multiple_of: Lengths are rounded up to it.
            padding_side: "right" or "left" instead of the tokenizer's own.
            return_attention_mask: Whether a missing one is made; None means if `model_input_names` has it.
            return_tensors: "pt" or "np"; None gives what came in.
            verbose: Without effect.
        """
        columns, kind = as_columns(encoded_inputs)
        options = CallOptions(
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_tensors=return_tensors,
            truncation=False,
        )
        options.check(takes_prefix_space=False)
        filling = self._settings(options, paired=False).padding
        mask = "attention_mask" in self.model_input_names if return_attention_mask is None else return_attention_mask
        if filling is not None or mask:
            columns = pad_columns(
                columns,
                length=filling.length if filling else None,
                longest=filling is not None and filling.length is None,
                multiple=pad_to_multiple_of,
                left=filling is not None and filling.side == "left",
                pad_id=filling.token_id if filling else 0,
                with_mask=mask,
            )
        return BatchEncoding(columns, tensor_type=return_tensors or kind)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )
