import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmr_core.errors import CheckpointError
from xlmr_core.tokenization import Tokenizer
from xlmr_core.tokenization.sentencepiece import parse_model


@pytest.fixture
def directory(tokenizer_json: Path, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    return tmp_path


Edit = Callable[[dict], object]


def edit(directory: Path, change: Edit) -> None:
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_an_empty_directory_says_which_files_are_needed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json, sentencepiece\.bpe\.model, or vocab\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "sentencepiece.bpe.model", "vocab.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 40, b"null"])
def test_a_corrupt_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "merges.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.load(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_no_bytes_break_the_sentencepiece_reader(data: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        parse_model(data)


def test_a_half_written_sentencepiece_model_is_refused(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "tokenizers/toy/toy.model").read_bytes()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="sentencepiece"):
        Tokenizer.load(tmp_path)


def test_a_broken_character_map_is_refused(directory: Path) -> None:
    edit(
        directory,
        lambda content: content.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    )
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.load(directory)


def test_a_file_beyond_the_bound_is_not_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlmr_core.tokenization.loading._MAX_BYTES", 1 << 10)
    with pytest.raises(CheckpointError, match="larger than"):
        Tokenizer.load(directory)


def test_missing_special_tokens_are_all_named(directory: Path) -> None:
    (directory / "special_tokens_map.json").write_text('{"bos_token": "[BOS]", "pad_token": {"content": "[PAD]"}}')
    with pytest.raises(CheckpointError, match=r"lacks \[BOS\], \[PAD\]"):
        Tokenizer.load(directory)


def test_a_tokenizer_of_another_family_is_refused(directory: Path) -> None:
    def bert_frame(content: dict) -> None:
        content["post_processor"]["pair"] = [part for part in content["post_processor"]["pair"] if part != EOS][:-1]

    edit(directory, bert_frame)
    with pytest.raises(CheckpointError, match="frame"):
        Tokenizer.load(directory)


EOS = {"SpecialToken": {"id": "</s>", "type_id": 0}}


@pytest.mark.parametrize(
    ("stated", "understood"),
    [(512, 512), (10**30, None), (1e30, None), (None, None), ("512", None), (True, None)],
)
def test_model_max_length(directory: Path, stated: object, understood: int | None) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": stated}))
    assert Tokenizer.load(directory).model_max_length == understood


def test_special_tokens_the_file_forgot_to_register_are_still_found_in_texts(directory: Path) -> None:
    edit(directory, lambda content: content.update(added_tokens=[]))
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.special.mask is None
    assert tokenizer.special.eos in tokenizer.encode(["a</s>b"]).ids


def test_tokens_added_beside_a_vocabulary_are_found(tmp_path: Path) -> None:
    """As transformers 4 kept them: in added_tokens.json, the mask among them."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "Ġ"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<mask>": 7, "<new>": 8}))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special.mask == 7
    assert tokenizer.encode(["a<new>b <mask>"]).ids.tolist() == [4, 8, 5, 7]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": 99}))
    with pytest.raises(CheckpointError, match="do not get their ids '<new>' 99"):
        Tokenizer.load(tmp_path)
