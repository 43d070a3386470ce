"""Files in every layout give the same hidden states; what is unsafe or broken is refused with its name."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.weights import open_weights
from xlmr_core.errors import CheckpointError


class Payload:
    """Would create a file if anyone ever unpickled it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def as_pickle(directory, **options):
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin", **options)
    (directory / "model.safetensors").unlink()


def test_shards_are_as_good_as_one_file(random_model, saved, hidden_of, tmp_path):
    whole = saved()
    random_model("XLMRobertaModel").save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert torch.equal(hidden_of(tmp_path / "shards"), hidden_of(whole))
    digests = {Checkpoint.open(str(path)).encoder_sha256() for path in (whole, tmp_path / "shards")}
    assert len(digests) == 1


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_pickled_tensors_are_read_without_running_code(saved, hidden_of, options):
    directory = saved()
    expected = hidden_of(directory)
    as_pickle(directory, **options)
    assert torch.equal(hidden_of(directory), expected)


def test_pickled_shards_are_read_too(saved, hidden_of):
    directory = saved()
    expected = hidden_of(directory)
    tensors = list(load_file(directory / "model.safetensors").items())
    files = {"pytorch_model-00001-of-00002.bin": tensors[::2], "pytorch_model-00002-of-00002.bin": tensors[1::2]}
    for name, part in files.items():
        torch.save(dict(part), directory / name)
    index = {"weight_map": {key: name for name, part in files.items() for key, _ in part}}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (directory / "model.safetensors").unlink()
    assert torch.equal(hidden_of(directory), expected)


def test_safetensors_come_first(saved):
    directory = saved()
    (directory / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert open_weights(directory).files == (directory / "model.safetensors",)


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_pickled_code_is_refused_and_never_runs(saved, tmp_path, protocol):
    directory, trap = saved(), tmp_path / "trap"
    (directory / "model.safetensors").unlink()
    content = {"embeddings.word_embeddings.weight": Payload(trap)}
    if protocol == "torch":
        torch.save(content, directory / "pytorch_model.bin")
    else:
        (directory / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(
        CheckpointError, match=r"pytorch_model\.bin holds pickled objects.*ask its author for safetensors"
    ):
        Checkpoint.open(str(directory))
    assert not trap.exists()


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"a": 1}, [torch.ones(1)]])
def test_a_pickle_that_is_no_state_dict_is_refused(saved, content):
    directory = saved()
    (directory / "model.safetensors").unlink()
    torch.save(content, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no state dict"):
        Checkpoint.open(str(directory))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_half_written_files_are_named(saved, name, keep):
    directory = saved()
    if name == "pytorch_model.bin":
        as_pickle(directory)
    (directory / name).write_bytes((directory / name).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=name):
        Checkpoint.open(str(directory)).load_encoder()


def test_a_header_that_claims_more_than_the_file_has_is_refused(saved):
    directory = saved()
    (directory / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="no valid safetensors"):
        Checkpoint.open(str(directory))


def test_an_index_that_does_not_fit_is_reported_whole(saved):
    directory = saved()
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError) as error:
        Checkpoint.open(str(directory))
    assert "must be a plain file name" in str(error.value)
    assert "model-00002-of-00002.safetensors is missing" in str(error.value)


def test_a_directory_without_weights_says_what_it_needs(saved):
    directory = saved()
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no weights.*needs model\.safetensors or pytorch_model\.bin"):
        Checkpoint.open(str(directory))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2), (torch.float64, 1e-5)])
def test_files_of_any_float_type_become_float32(saved, rewrite, hidden_of, dtype, tolerance):
    directory = saved()
    expected = hidden_of(directory)
    rewrite(directory, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    assert (
        Checkpoint.open(str(directory)).load_encoder().encoder.layer[0].attention.self.qkv.weight.dtype == torch.float32
    )
    assert (hidden_of(directory) - expected).abs().max() < tolerance


def test_types_that_are_no_floats_are_refused(saved, rewrite):
    directory = rewrite(saved(), lambda tensors: {name: value.to(torch.int8) for name, value in tensors.items()})
    with pytest.raises(CheckpointError, match="a type that is not read"):
        Checkpoint.open(str(directory))


def test_tensors_are_mapped_not_copied(saved):
    stored = open_weights(saved()).tensors["embeddings.word_embeddings.weight"]
    assert stored.load().data_ptr() == stored.load().data_ptr()
    assert stored.shape == (120, 48)
