"""Finds and reads the tokenizer files of a model directory."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from xlmr_core.errors import CheckpointError
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


def read_tokenizer(directory: Path) -> TokenizerFiles:
    """Reads `tokenizer.json`, else `sentencepiece.bpe.model`, else `vocab.json` with `merges.txt`.

    `tokenizer_config.json` and `special_tokens_map.json` are optional; the former wins.

    Raises:
        CheckpointError: Nothing to read, unreadable, too large, or not of the XLM-R and RoBERTa family.
    """
    config = {
        **_read_json(directory / "special_tokens_map.json"),
        **_read_json(directory / "tokenizer_config.json"),
    }
    library = _read_library(directory, config)
    library.no_truncation()
    library.no_padding()
    special = _register_special_tokens(library, config, directory)
    _check_frame(library, special, directory)
    limit = config.get("model_max_length")
    known = isinstance(limit, int) and not isinstance(limit, bool) and 0 < limit < _NO_LIMIT
    return TokenizerFiles(library, special, limit if known else None)


def _read_library(directory: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    whole, pieces = directory / "tokenizer.json", directory / "sentencepiece.bpe.model"
    vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
    if whole.is_file():
        with _reading(whole):
            return tokenizers.Tokenizer.from_buffer(_read_bounded(whole, _MAX_BYTES))
    if pieces.is_file():
        with _reading(pieces):
            return unigram_tokenizer(parse_model(_read_bounded(pieces, _MAX_BYTES)))
    if vocabulary.is_file() and merges.is_file():
        for path in (vocabulary, merges):
            _read_bounded(path, _MAX_BYTES)
        with _reading(vocabulary):
            return _byte_level(vocabulary, merges, add_prefix_space=bool(config.get("add_prefix_space", False)))
    raise CheckpointError(
        f"tokenizer of {directory} not found, it must hold tokenizer.json, sentencepiece.bpe.model, "
        "or vocab.json with merges.txt; copy them from the model the checkpoint was trained from"
    )


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


def _byte_level(vocabulary: Path, merges: Path, *, add_prefix_space: bool) -> tokenizers.Tokenizer:
    """RoBERTa's byte-level BPE. Source: transformers `convert_slow_tokenizer.RobertaConverter`."""
    model = models.BPE.from_file(
        str(vocabulary), str(merges), continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    bos, eos = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    if bos is not None and eos is not None:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", eos), ("<s>", bos), trim_offsets=True, add_prefix_space=add_prefix_space
        )
    return tokenizer


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


def _check_frame(library: tokenizers.Tokenizer, special: SpecialTokens, directory: Path) -> None:
    """Refuses a tokenizer that frames texts otherwise; one that frames nothing says nothing against it."""
    first, second = (library.encode(text, add_special_tokens=False).ids for text in ("a", "b"))
    bos, eos = special.bos, special.eos
    expected = [bos, *first, eos, eos, *second, eos]
    got = library.encode("a", "b").ids
    if got not in (expected, first + second):
        raise CheckpointError(
            f"tokenizer of {directory} makes {got} of the pair (a, b), the family's frame is "
            f"<s> A </s></s> B </s>, {expected}; take the tokenizer the checkpoint was trained with"
        )


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
