from pathlib import Path

import numpy as np
import pytest

from pipelines.finetune.data import TokenisedTexts, open_texts, source_digest, write_texts
from xlmr_core.errors import InputError


def write(folder: Path, source: str = "s") -> TokenisedTexts:
    chunks = [[np.array([5, 6]), np.array([7])], [np.array([31999, 8, 9])]]
    label, group = np.array([0, 1, 0]), np.array([-1, 0, 0])
    return write_texts(folder, chunks, label=label, group=group, labels=["a", "b"], source=source)


def test_a_copy_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    texts = open_texts(tmp_path, source="s")
    assert texts.ids.tolist() == [5, 6, 7, 31999, 8, 9]
    assert texts.lengths.tolist() == [2, 1, 3]
    assert (texts.label.tolist(), texts.group.tolist(), texts.labels) == ([0, 1, 0], [-1, 0, 0], ("a", "b"))


def test_a_copy_that_was_interrupted_does_not_count(tmp_path):
    write(tmp_path)
    (tmp_path / "meta.json").unlink()
    with pytest.raises(InputError, match="make it first"):
        open_texts(tmp_path, source="s")


def test_a_copy_of_other_data_is_refused(tmp_path):
    write(tmp_path, source="old")
    with pytest.raises(InputError, match="delete it"):
        open_texts(tmp_path, source="new")


def test_the_digest_follows_content_and_settings(tmp_path):
    file = tmp_path / "a"
    file.write_text("one")
    first = source_digest([file], 1)
    assert source_digest([file], 1) == first
    assert source_digest([file], 2) != first
    file.write_text("two")
    assert source_digest([file], 1) != first
