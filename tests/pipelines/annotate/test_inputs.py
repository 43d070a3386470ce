import errno
import os
import socket
from pathlib import Path

import pytest

from pipelines.annotate.inputs import InputFile, expand_inputs, first_inside, relative_names
from xlmr_core.errors import InputError


def write(path: Path, content: bytes = b"a\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def paths(files: list[InputFile], root: Path) -> list[str]:
    return [os.path.relpath(file.path, root) for file in files]


def test_folders_are_searched_recursively_and_sorted(tmp_path: Path):
    for name in ("b.txt", "a/z.jsonl", "a/y.csv.gz", "c d/é ü.tsv.zst", "x.parquet/part-0.parquet"):
        write(tmp_path / name)
    files = expand_inputs([tmp_path])
    assert paths(files, tmp_path) == [
        "a/y.csv.gz", "a/z.jsonl", "b.txt", "c d/é ü.tsv.zst", "x.parquet/part-0.parquet"
    ]  # fmt: skip
    assert [(file.format, file.compression) for file in files] == [
        ("csv", "gzip"), ("jsonl", None), ("text", None), ("tsv", "zstd"), ("parquet", None)
    ]  # fmt: skip


def test_hidden_private_and_unknown_files_in_folders_are_passed_over(tmp_path: Path):
    for name in ("a.txt", ".b.txt", "_c.txt", "_d/e.txt", ".f/g.txt", "README.md", "_SUCCESS"):
        write(tmp_path / name)
    assert paths(expand_inputs([tmp_path]), tmp_path) == ["a.txt"]
    assert paths(expand_inputs([tmp_path / "*"]), tmp_path) == ["a.txt"]
    assert paths(expand_inputs([tmp_path / "_c.txt"]), tmp_path) == ["_c.txt"]


def test_order_and_repeats_of_inputs_do_not_matter(tmp_path: Path):
    one, two = write(tmp_path / "1.txt"), write(tmp_path / "2.txt")
    (tmp_path / "3.txt").symlink_to(one)
    expected = expand_inputs([one, two])
    assert expand_inputs([two, one, two, tmp_path, str(tmp_path / "*.txt")]) == expected


def test_link_loops_pipes_and_sockets_do_no_harm(tmp_path: Path):
    write(tmp_path / "a/x.txt")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "self.txt").symlink_to(tmp_path / "self.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            listener.bind("s.txt")
        finally:
            os.chdir(here)
        assert paths(expand_inputs([tmp_path]), tmp_path) == ["a/x.txt"]
        with pytest.raises(InputError, match="not a regular file"):
            expand_inputs([tmp_path / "pipe.txt"])
    with pytest.raises(InputError, match="leads nowhere"):
        expand_inputs([tmp_path / "self.txt"])


def test_every_input_that_gives_nothing_is_named_at_once(tmp_path: Path):
    write(tmp_path / "a.bin")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as error:
        expand_inputs([tmp_path / "a.bin", tmp_path / "none", tmp_path / "empty", tmp_path / "*.x", "s3://b/c"])
    for part in (
        "a.bin: the name does not say",
        "none: no such",
        "empty: holds no",
        "*.x: holds no",
        "s3://b/c: remote",
    ):
        assert part in str(error.value)
    with pytest.raises(InputError, match="no inputs"):
        expand_inputs([])


def test_format_overrides_suffixes(tmp_path: Path):
    write(tmp_path / "a.log")
    write(tmp_path / "b.json.gz")
    files = expand_inputs([tmp_path], format="text")
    assert [(file.format, file.compression) for file in files] == [("text", None), ("text", "gzip")]
    with pytest.raises(InputError, match="must be one of"):
        expand_inputs([tmp_path], format="xml")


def test_a_literal_file_wins_over_a_pattern(tmp_path: Path):
    write(tmp_path / "a[1].txt")
    write(tmp_path / "a1.txt")
    assert paths(expand_inputs([tmp_path / "a[1].txt"]), tmp_path) == ["a[1].txt"]


def test_saved_datasets_are_found_also_below_a_dataset_dict(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"text": ["a", "b", "c"]})
    whole.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "two")
    files = expand_inputs([tmp_path])
    assert {file.format for file in files} == {"arrow"}
    assert [os.path.dirname(path) for path in paths(files, tmp_path)] == ["one", "one", "two/test", "two/train"]


def test_a_saved_dataset_cannot_point_outside_its_folder(tmp_path: Path):
    write(tmp_path / "d/state.json", b'{"_data_files": [{"filename": "../x.arrow"}]}')
    write(tmp_path / "d/dataset_info.json", b"{}")
    with pytest.raises(InputError, match="not a saved dataset"):
        expand_inputs([tmp_path / "d"])


def test_names_are_relative_to_the_common_folder_and_valid_text(tmp_path: Path):
    write(tmp_path / "a/1.txt")
    write(tmp_path / "b/2.txt")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b/\xff.txt")).write_bytes(b"x")
    names = relative_names(expand_inputs([tmp_path]))
    assert names == ["a/1.txt", "b/2.txt", "b/\\xff.txt"]
    assert relative_names(expand_inputs([tmp_path / "a/1.txt"])) == ["1.txt"]


def test_an_output_inside_an_input_is_recognised(tmp_path: Path):
    write(tmp_path / "in/out/a.txt")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    files = expand_inputs([tmp_path / "in"])
    assert first_inside(files, tmp_path / "link/out") == str(tmp_path / "in/out/a.txt")
    assert first_inside(files, tmp_path / "in/ou") is None


def test_a_file_that_cannot_be_looked_at_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stale = str(write(tmp_path / "a.txt"))
    real = os.stat

    def flaky(path: str, **options: object) -> os.stat_result:
        if path == stale:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", flaky)
    with pytest.raises(OSError, match=r"a\.txt was listed but cannot be looked at \(Stale file handle\)"):
        expand_inputs([tmp_path])
