"""The rebuilt XLM-R tokenizer as model directories, and transformers' reading of the same files."""

import gzip
from pathlib import Path

import pytest
import transformers

from xlmr_core.tokenization import Tokenizer


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
    (directory / "sentencepiece.bpe.model").write_bytes(model.read_bytes())
    return directory


@pytest.fixture(scope="session")
def roberta(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("roberta")
    for name in ("vocab.json", "merges.txt"):
        (directory / name).write_bytes((shared_data / "tokenizers/roberta" / name).read_bytes())
    return directory


@pytest.fixture(scope="session")
def ours(xlmr_json: Path) -> Tokenizer:
    return Tokenizer.load(xlmr_json)


@pytest.fixture(scope="session")
def theirs(xlmr_json: Path) -> transformers.PreTrainedTokenizerFast:
    return reference(xlmr_json)


@pytest.fixture(scope="session")
def small(tokenizer_json: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_json.parent)


def reference(directory: Path) -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"),
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
