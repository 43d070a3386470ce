"""Finds and reads the tokenizer files of a model directory."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken

from xlmr_core.errors import CheckpointError
from xlmr_core.tokenization.byte_level import byte_level_tokenizer, set_byte_level
from xlmr_core.tokenization.encoding import SpecialTokens
from xlmr_core.tokenization.sentencepiece import parse_model, unigram_tokenizer

_MAX_BYTES = 256 << 20
_MAX_CONFIG_BYTES = 16 << 20
# transformers writes 1e30 where it knows no limit.
_NO_LIMIT = 100_000

_ROLES = (
    ("cls_token", "bos_token", "<s>"),
    ("sep_token", "eos_token", "</s>"),
    ("pad_token", "pad_token", "<pad>"),
    ("unk_token", "unk_token", "<unk>"),
    ("mask_token", "mask_token", "<mask>"),
)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A tokenizer as a model directory holds it.

    Attributes:
        library: Without truncation and padding, special tokens registered.
        special: Ids of the framing tokens.
        model_max_length: Longest input the directory states, special tokens included; None for no statement.
    """

    library: tokenizers.Tokenizer
    special: SpecialTokens
    model_max_length: int | None


@dataclass(frozen=True, slots=True)
class TokenizerSources:
    """The files of a tokenizer: `tokenizer.json`, else a SentencePiece model, else `vocab.json` and merges."""

    whole: Path | None = None
    pieces: Path | None = None
    vocabulary: Path | None = None
    merges: Path | None = None

    @classmethod
    def of(cls, directory: Path) -> "TokenizerSources":
        """What a model directory holds.

        Raises:
            CheckpointError: It holds no tokenizer.
        """
        whole, pieces = directory / "tokenizer.json", directory / "sentencepiece.bpe.model"
        vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
        if whole.is_file():
            return cls(whole=whole)
        if pieces.is_file():
            return cls(pieces=pieces)
        if vocabulary.is_file() and merges.is_file():
            return cls(vocabulary=vocabulary, merges=merges)
        raise CheckpointError(
            f"tokenizer of {directory} not found, it must hold tokenizer.json, sentencepiece.bpe.model, "
            "or vocab.json with merges.txt; copy them from the model the checkpoint was trained from"
        )


def read_tokenizer(directory: Path) -> TokenizerFiles:
    """Reads `tokenizer.json`, else `sentencepiece.bpe.model`, else `vocab.json` with `merges.txt`.

    `tokenizer_config.json` and `special_tokens_map.json` are optional; the former wins.

    Raises:
        CheckpointError: Nothing to read, unreadable, too large, or not of the XLM-R and RoBERTa family.
    """
    config = read_tokenizer_config(directory)
    sources = TokenizerSources.of(directory)
    library = read_library(sources)
    if sources.whole is None:
        add_stored_tokens(library, config, directory)
    special = _register_special_tokens(library, config, directory)
    if sources.vocabulary is not None:
        set_byte_level(library, special.bos, special.eos, add_prefix_space=bool(config.get("add_prefix_space", False)))
    if frame_of(library, special.bos, special.eos) == "other":
        raise other_frame(library, special.bos, special.eos, directory)
    limit = config.get("model_max_length")
    return TokenizerFiles(library, special, limit if is_length(limit) else None)


def read_tokenizer_config(directory: Path) -> dict[str, Any]:
    """What `tokenizer_config.json` says and, where it says nothing, the files that older versions wrote beside it.

    Raises:
        CheckpointError: One of the files cannot be read.
    """
    said = {**_read_json(directory / "special_tokens_map.json"), **_read_json(directory / "tokenizer_config.json")}
    special = {
        "<s>",
        "</s>",
        "<pad>",
        "<unk>",
        "<mask>",
        *(_content(said.get(role)) for pair in _ROLES for role in pair),
    }
    masks = {_content(said.get("mask_token")), "<mask>"}
    stored = {
        str(token): {
            "content": text,
            "special": text in special,
            "normalized": text not in special,
            "lstrip": text in masks,
        }
        for text, token in _read_json(directory / "added_tokens.json").items()
    }
    return {"added_tokens_decoder": stored, **said}


def is_length(value: object) -> bool:
    """Whether `model_max_length` is a statement; transformers writes 1e30 where it knows none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _NO_LIMIT


def read_library(sources: TokenizerSources) -> tokenizers.Tokenizer:
    """Reads a tokenizer as its files have it, truncation and padding off; a byte-level one of two files has no frame.

    Raises:
        CheckpointError: Unreadable or too large, the file is named.
    """
    if sources.whole is not None:
        with _reading(sources.whole):
            library = tokenizers.Tokenizer.from_buffer(_read_bounded(sources.whole, _MAX_BYTES))
    elif sources.pieces is not None:
        with _reading(sources.pieces):
            library = unigram_tokenizer(parse_model(_read_bounded(sources.pieces, _MAX_BYTES)))
    else:
        assert sources.vocabulary is not None
        assert sources.merges is not None
        for path in (sources.vocabulary, sources.merges):
            _read_bounded(path, _MAX_BYTES)
        with _reading(sources.vocabulary):
            library = byte_level_tokenizer(sources.vocabulary, sources.merges)
    library.no_truncation()
    library.no_padding()
    return library


def add_stored_tokens(library: tokenizers.Tokenizer, config: Mapping[str, Any], where: object) -> None:
    """Adds the tokens that tokenizers without a `tokenizer.json` keep beside their vocabulary, each at its id.

    Raises:
        CheckpointError: Tokens that are none, or whose ids the vocabulary does not lead to.
    """
    stored = config.get("added_tokens_decoder") or {}
    try:
        tokens = {int(number): added_token(stored[number]) for number in sorted(stored, key=int)}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"tokenizer of {where}: added tokens cannot be read ({error}); save it again") from error
    library.add_tokens(list(tokens.values()))
    wrong = [f"{token.content!r} {number}" for number, token in tokens.items() if _moved(library, token, number)]
    if wrong:
        raise CheckpointError(
            f"tokenizer of {where}: added tokens do not get their ids {', '.join(wrong[:5])}, they must follow "
            "the vocabulary without a gap; take the vocabulary the tokens were added to"
        )


def added_token(stored: Any) -> AddedToken:
    """An added token as tokenizer files describe it."""
    if isinstance(stored, AddedToken):
        return stored
    flags = {
        key: bool(stored[key]) for key in ("lstrip", "rstrip", "single_word", "normalized", "special") if key in stored
    }
    return AddedToken(stored["content"], **flags)


def _moved(library: tokenizers.Tokenizer, token: AddedToken, number: int) -> bool:
    return bool(library.token_to_id(token.content) != number)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is a fault of the file."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except BaseException as error:  # a broken character map makes the library panic, which is no Exception
        raise CheckpointError(_unreadable(path, error)) from error


def _register_special_tokens(library: tokenizers.Tokenizer, config: dict[str, Any], directory: Path) -> SpecialTokens:
    """Finds the ids; a literal "<s>" in a text becomes the token even where the file forgot to say so."""
    names = [_content(config.get(role)) or _content(config.get(other)) or default for role, other, default in _ROLES]
    ids = [library.token_to_id(name) for name in names]
    bos, eos, pad, unk, mask = ids
    if bos is None or eos is None or pad is None or unk is None:
        missing = [name for name, found in zip(names[:4], ids[:4], strict=True) if found is None]
        raise CheckpointError(
            f"tokenizer of {directory} lacks {', '.join(missing)}, XLM-R and RoBERTa need them; name its "
            "own in special_tokens_map.json or take the tokenizer the checkpoint was trained with"
        )
    known = {token.content for token in library.get_added_tokens_decoder().values()}
    library.add_special_tokens(
        [
            AddedToken(name, special=True, normalized=False, lstrip=role == "mask_token")
            for name, found, (role, _, _) in zip(names, ids, _ROLES, strict=True)
            if found is not None and name not in known
        ]
    )
    return SpecialTokens(bos, eos, pad, unk, mask)


def frame_of(library: tokenizers.Tokenizer, bos: int, eos: int) -> Literal["ours", "none", "other"]:
    """Whether a tokenizer frames a pair as `<s> A </s></s> B </s>`; one that frames nothing says nothing against it."""
    got, bare, framed = _frames(library, bos, eos)
    if got == framed:
        return "ours"
    return "none" if got == bare else "other"


def other_frame(library: tokenizers.Tokenizer, bos: int, eos: int, where: object) -> CheckpointError:
    """The refusal of a tokenizer whose frame is another family's."""
    got, _, framed = _frames(library, bos, eos)
    return CheckpointError(
        f"tokenizer of {where} makes {got} of the pair (a, b), the family's frame is "
        f"<s> A </s></s> B </s>, {framed}; take the tokenizer the checkpoint was trained with"
    )


def _frames(library: tokenizers.Tokenizer, bos: int, eos: int) -> tuple[list[int], list[int], list[int]]:
    """Ids of a pair of texts as the tokenizer makes them, without a frame, and with the family's."""
    first, second = (library.encode(text, add_special_tokens=False).ids for text in ("a", "b"))
    return library.encode("a", "b").ids, first + second, [bos, *first, eos, eos, *second, eos]


def _content(token: object) -> str | None:
    """A special token is written as a string or as a description of an added token."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read_bounded(path, _MAX_CONFIG_BYTES))
    except ValueError as error:
        raise CheckpointError(_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(_unreadable(path, f"{type(content).__name__} instead of an object"))
    return content


def _read_bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CheckpointError(f"{path.name} is larger than {limit >> 20} MiB, no tokenizer is; check what the file is")
    return data


def _unreadable(path: Path, reason: object) -> str:
    return f"{path} cannot be read ({str(reason)[:200]}), it must be a whole file of its kind; fetch it again"
