"""Directories, heads, the embedded model and the Hub's cache; nothing here uses a network."""

import shutil
import socket

import huggingface_hub
import pytest

from xlmr_core.checkpoint import Checkpoint, location
from xlmr_core.checkpoint.location import MINI, Location, locate
from xlmr_core.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An offline Hub cache in which `org/name` has the branch `main` and the tag `v1` at one commit."""
    repository = tmp_path / "hub/models--org--name"
    for name in ("main", "v1"):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def refuse(*args, **kwargs):
        raise AssertionError("something tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return repository / "snapshots" / COMMIT


def test_a_directory_is_itself_even_with_odd_names(tmp_path):
    for name in ("plain", "with#hash", "with@at"):
        (tmp_path / name).mkdir()
        assert locate(str(tmp_path / name)) == Location(tmp_path / name, None)
    assert locate(f"{tmp_path}/plain#topic") == Location(tmp_path / "plain", "topic")


def test_mini_is_the_embedded_model_whatever_lies_here(tmp_path, monkeypatch):
    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("mini") == Location(MINI, None)
    assert locate("mini#language") == Location(MINI, "language")
    assert locate("./mini").directory.resolve() == tmp_path / "mini"


@pytest.mark.parametrize("spec", ["", "nowhere", "./nowhere", "/no/where", "a/b/c", "org/name@", "~/x"])
def test_what_is_neither_directory_nor_hub_id_is_refused(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="is no directory, it must be one, mini, or a Hub id"):
        locate(spec)


@pytest.mark.parametrize("spec", ["mini#", "mini#../x", "mini#a/b"])
def test_a_head_is_a_plain_name(spec):
    with pytest.raises(CheckpointError, match="names the head"):
        locate(spec)


@pytest.mark.parametrize("suffix", ["", "@main", "@v1", f"@{COMMIT}"])
def test_a_cached_hub_model_opens_offline_at_its_commit(hub_cache, saved, suffix):
    shutil.copytree(saved(), hub_cache, dirs_exist_ok=True)
    checkpoint = Checkpoint.open(f"org/name{suffix}")
    assert checkpoint.revision == COMMIT
    assert checkpoint.directory == hub_cache
    assert checkpoint.load_encoder().config.hidden_size == 48


@pytest.mark.parametrize("spec", ["org/other", "org/name@v2"])
def test_what_the_cache_lacks_is_said_with_the_way_out(hub_cache, spec):
    with pytest.raises(CheckpointError, match=r"cannot be had.*hf download org/"):
        Checkpoint.open(spec)


def test_an_incomplete_snapshot_names_the_file_and_the_way_out(hub_cache, saved):
    shutil.copytree(saved(), hub_cache, dirs_exist_ok=True)
    (hub_cache / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open("org/name@v1")
    assert "has no weights" in str(error.value)
    assert f"hf download org/name --revision {COMMIT}" in str(error.value)


@pytest.mark.parametrize(("has_safetensors", "calls"), [(True, 1), (False, 2)])
def test_pickles_are_fetched_only_where_there_is_nothing_better(tmp_path, monkeypatch, has_safetensors, calls):
    asked = []

    def fetch(repository, *, revision, allow_patterns):
        asked.append(allow_patterns)
        (tmp_path / COMMIT).mkdir(exist_ok=True)
        if has_safetensors:
            (tmp_path / COMMIT / "model.safetensors").touch()
        return str(tmp_path / COMMIT)

    monkeypatch.setattr(location, "snapshot_download", fetch)
    locate("org/name")
    assert len(asked) == calls
    assert "pytorch_model.bin" not in asked[0]
    assert "pytorch_model.bin" in asked[-1] or calls == 1
    files = ["config.json", "tokenizer.json", "1_Pooling/config.json", "2_Dense/pytorch_model.bin", "xlmr.json"]
    files += ["sparse_linear.pt", "colbert_linear.pt", "adapter_config.json", "adapter_model.safetensors"]
    unwanted = ["onnx/model.onnx", "openvino_model.bin", "flax_model.msgpack", "README.md", "pytorch_model.bin"]
    wanted = huggingface_hub.utils.filter_repo_objects([*files, *unwanted], allow_patterns=asked[0])
    assert list(wanted) == files
