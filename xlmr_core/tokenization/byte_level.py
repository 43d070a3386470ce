"""RoBERTa's byte-level byte pairs: the tokenizer of `vocab.json` and `merges.txt`, its parts, and its way back to text.

Source: transformers `convert_slow_tokenizer.RobertaConverter`, `RobertaTokenizer.convert_tokens_to_string`.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors


def byte_level_tokenizer(vocabulary: Path, merges: Path) -> tokenizers.Tokenizer:
    """Reads the files; no special tokens and no frame yet, see `set_byte_level`."""
    model = models.BPE.from_file(
        str(vocabulary), str(merges), continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_level_options(library: tokenizers.Tokenizer) -> tuple[bool, bool] | None:
    """`add_prefix_space` and `trim_offsets` as a tokenizer has them; None for one that is not built like RoBERTa's."""
    splitter, frame = component_state(library.pre_tokenizer), component_state(library.post_processor)
    if splitter.get("type") != "ByteLevel" or frame.get("type", "RobertaProcessing") != "RobertaProcessing":
        return None
    return splitter["add_prefix_space"], frame.get("trim_offsets", True)


def set_byte_level(
    library: tokenizers.Tokenizer, cls: int, sep: int, *, add_prefix_space: bool, trim_offsets: bool = True
) -> None:
    """Splits and frames as RoBERTa does: `<s> A </s>` and `<s> A </s></s> B </s>`.

    Args:
        library: Changed in place; the parts are new objects, tokenizers that share the old ones keep them.
        cls: Id of the first token of a sequence.
        sep: Id of the last one, also between two texts.
        add_prefix_space: Whether a text that begins with no blank gets one.
        trim_offsets: Whether the blanks at a token's edges are left out of its offsets.
    """
    use_regex = component_state(library.pre_tokenizer).get("use_regex", True)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)
    library.post_processor = processors.RobertaProcessing(
        (library.id_to_token(sep) or "", sep),
        (library.id_to_token(cls) or "", cls),
        trim_offsets=trim_offsets,
        add_prefix_space=add_prefix_space,
    )


def tokens_to_bytes(tokens: Sequence[str]) -> bytes:
    """The bytes that tokens stand for; a token that is none of the byte alphabet stands for itself, in UTF-8."""
    table = _bytes_of_characters()
    return b"".join(
        bytes(map(table.__getitem__, token)) if table.keys() >= set(token) else token.encode() for token in tokens
    )


@cache
def _bytes_of_characters() -> dict[str, int]:
    """The printable character of each byte, backwards. Source: GPT-2 `encoder.bytes_to_unicode`."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def component_state(component: Any) -> dict[str, Any]:
    """A component as the library serialises it; empty for an absent one."""
    return dict(json.loads(component.__getstate__())) if component is not None else {}
