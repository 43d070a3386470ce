"""Tokenizers, ours and transformers' of the same files: small ones for every option, the real ones for texts."""

import gzip
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import transformers
from tokenizers import pre_tokenizers

from xlmr_core.pretrained_tokenizers import (
    PreTrainedTokenizer,
    RobertaTokenizer,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
)

ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
MERGES = ["Ġ t", "h e", "Ġt he", "l l", "he ll", "hell o", "Ġ a", "o r", "Ġ w", "Ġw or", "i n", "e r", "s t"]
# transformers 5 forgets that the mask swallows the blank before it, unless told.
MASK = transformers.AddedToken("<mask>", lstrip=True, special=True, normalized=False)


class Pair(NamedTuple):
    ours: PreTrainedTokenizer
    theirs: transformers.PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def small(tokenizer_json: Path) -> Pair:
    """Unigram pieces of the sample corpus."""
    return Pair(
        XLMRobertaTokenizerFast(tokenizer_file=tokenizer_json, model_max_length=64),
        transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_json), model_max_length=64, **ROLES),
    )


@pytest.fixture(scope="session")
def byte_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa vocabulary of all bytes and a few merges."""
    directory = tmp_path_factory.mktemp("byte-level")
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [merge.replace(" ", "") for merge in MERGES] + ["<mask>"]
    (directory / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def small_bytes(byte_files: Path) -> Pair:
    return Pair(
        RobertaTokenizer.from_pretrained(byte_files, model_max_length=64),
        transformers.RobertaTokenizer.from_pretrained(byte_files, model_max_length=64, mask_token=MASK),
    )


@pytest.fixture(params=["small", "small_bytes"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def xlmr_json(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("xlmr-json")
    packed = shared_data / "tokenizers/xlmr/tokenizer.reconstructed.json.gz"
    (directory / "tokenizer.json").write_bytes(gzip.decompress(packed.read_bytes()))
    return directory


@pytest.fixture(scope="session")
def xlmr_pieces(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("xlmr-pieces")
    model = shared_data / "tokenizers/xlmr/sentencepiece.reconstructed.model"
    shutil.copy(model, directory / "sentencepiece.bpe.model")
    return directory


@pytest.fixture(scope="session")
def roberta_files(shared_data: Path) -> Path:
    return shared_data / "tokenizers/roberta"


@pytest.fixture(scope="session")
def toy(shared_data: Path) -> Path:
    """A SentencePiece model of a thousand pieces."""
    return shared_data / "tokenizers/toy/toy.model"


@pytest.fixture(scope="session")
def toy_pair(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp("toy")
    shutil.copy(toy, directory / "sentencepiece.bpe.model")
    return Pair(
        XLMRobertaTokenizer.from_pretrained(directory),
        transformers.XLMRobertaTokenizer.from_pretrained(directory, mask_token=MASK),
    )


@pytest.fixture(scope="session")
def xlmr(xlmr_json: Path) -> Pair:
    return Pair(
        XLMRobertaTokenizerFast.from_pretrained(xlmr_json),
        transformers.PreTrainedTokenizerFast(tokenizer_file=str(xlmr_json / "tokenizer.json"), **ROLES),
    )


@pytest.fixture(scope="session")
def xlmr_slow(xlmr_pieces: Path) -> Pair:
    return Pair(
        XLMRobertaTokenizer.from_pretrained(xlmr_pieces),
        transformers.XLMRobertaTokenizer.from_pretrained(xlmr_pieces, mask_token=MASK),
    )


@pytest.fixture(scope="session")
def roberta(roberta_files: Path) -> Pair:
    return Pair(
        RobertaTokenizer.from_pretrained(roberta_files),
        transformers.RobertaTokenizer.from_pretrained(roberta_files, mask_token=MASK),
    )
