"""Reads `sentencepiece.bpe.model`, with nothing but the standard library, into a fast tokenizer.

The file is one protobuf message (`sentencepiece_model.proto`); of its fields only the pieces, the kind of
model and the normaliser's character map matter here. The fairseq shift and the parts are those of
transformers' `XLMRobertaConverter` and `XLMRobertaTokenizer`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from xlmr_core.errors import CheckpointError

_UNIGRAM = 1
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What a SentencePiece model file says.

    Attributes:
        pieces: Text, log probability and type (1 normal, 2 unknown, 3 control, 4 user defined, ...) of each
            piece.
        model_type: 1 unigram, 2 byte pairs, 3 word, 4 character.
        charsmap: The compiled normalisation map; empty for none.
    """

    pieces: list[tuple[str, float, int]]
    model_type: int
    charsmap: bytes


def parse_model(data: bytes) -> SentencePieceModel:
    """Parses a serialised `ModelProto`.

    Raises:
        CheckpointError: The bytes are no such message, or it is cut short.
    """
    pieces: list[tuple[str, float, int]] = []
    model_type, charsmap = _UNIGRAM, b""
    try:
        for field, value in _fields(data):
            if field == 1:
                pieces.append(_piece(_message(value)))
            elif field == 2:
                model_type = next((v for f, v in _fields(_message(value)) if f == 3 and isinstance(v, int)), _UNIGRAM)
            elif field == 3:
                charsmap = next((_message(v) for f, v in _fields(_message(value)) if f == 2), b"")
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointError(
            f"sentencepiece model of {len(data)} bytes cannot be parsed ({error}), it must be a whole one; "
            "fetch the file again"
        ) from error
    return SentencePieceModel(pieces, model_type, charsmap)


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, 1
    for field, value in _fields(data):
        if field == 1:
            text = _message(value).decode("utf-8")
        elif field == 2:
            (score,) = struct.unpack("<f", _message(value))
        elif field == 3 and isinstance(value, int):
            kind = value
    return text, score, kind


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: varints as numbers, all else as its raw bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"field {key >> 3} ends {at + size - len(data)} bytes behind the end")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"number without an end at byte {at}")


def unigram_tokenizer(model: SentencePieceModel) -> tokenizers.Tokenizer:
    """The tokenizer of an XLM-R model: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, pieces + 1, `<mask>` last.

    Source: transformers `convert_slow_tokenizer.XLMRobertaConverter`.

    Raises:
        CheckpointError: Not a unigram model, or not one that starts with unk, bos, eos.
    """
    if model.model_type != _UNIGRAM:
        raise CheckpointError(
            f"sentencepiece model type {model.model_type}, it must be 1 (unigram); export tokenizer.json"
        )
    if [kind for _, _, kind in model.pieces[:3]] != [_UNKNOWN, _CONTROL, _CONTROL]:
        raise CheckpointError(
            f"sentencepiece model starts with {[text for text, _, _ in model.pieces[:3]]}, XLM-R's start "
            "with <unk>, <s>, </s>; export tokenizer.json from the tokenizer it was trained with"
        )
    rest = model.pieces[3:]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(text, score) for text, score, _ in rest]
    vocabulary.append(("<mask>", 0.0))
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    if model.charsmap:
        tokenizer.normalizer = normalizers.Precompiled(model.charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    set_frame(tokenizer, 0, 2)
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in ("<s>", "<pad>", "</s>", "<unk>")]
        + [AddedToken("<mask>", special=True, normalized=False, lstrip=True)]
    )
    tokenizer.add_tokens(
        [
            AddedToken(text, special=kind == _CONTROL, normalized=False)
            for text, _, kind in rest
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer


def set_frame(library: tokenizers.Tokenizer, cls: int, sep: int) -> None:
    """Frames texts as `<s> A </s>` and `<s> A </s></s> B </s>`, with the tokens of these ids."""
    first, last = library.id_to_token(cls) or "", library.id_to_token(sep) or ""
    library.post_processor = processors.TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, last, "$B", last],
        special_tokens=[(first, cls), (last, sep)],
    )
