import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from pipelines.config import AnnotateConfig, ConfigError, Section, is_override, load_config

MINIMAL = {"input.paths": ["corpus"], "output.path": "out"}


def test_later_sources_win(tmp_path: Path):
    file = tmp_path / "job.yaml"
    file.write_text("input: {paths: [a, b], limit: 5, seed: 1}\noutput: {path: out}\nrun: {shard_rows: 10}\n")
    options = {"input.limit": 6, "run.shard_rows": 20, "input.sample": None}
    config = load_config(AnnotateConfig, file=file, options=options, overrides=["run.shard_rows=30"])
    assert (config.input.paths, config.input.seed, config.input.limit) == (("a", "b"), 1, 6)
    assert (config.run.shard_rows, config.input.sample) == (30, 1.0)


def test_a_base_says_what_the_file_does_not(tmp_path: Path):
    base, file = tmp_path / "base.yaml", tmp_path / "job.yaml"
    base.write_text("input: {paths: [a], limit: 5, seed: 1}\noutput: {path: out}\nrun: {shard_rows: 10}\n")
    file.write_text("input: {limit: 6}\nrun: {shard_rows: 20}\n")
    config = load_config(AnnotateConfig, base=base, file=file, overrides=["run.shard_rows=30"])
    assert (config.input.paths, config.input.seed, config.input.limit) == (("a",), 1, 6)
    assert (config.output.path, config.run.shard_rows) == ("out", 30)


def test_overrides_are_read_by_the_type_of_their_field():
    texts = ["input.keep=url,title", "input.sample=0.5", "model.tasks=t=model,labels=a|b", "input.pair_column=null"]
    config = load_config(AnnotateConfig, options=MINIMAL, overrides=texts)
    assert config.input.keep == ("url", "title")
    assert (config.input.sample, config.input.pair_column) == (0.5, ())
    assert config.model.tasks == ("t=model,labels=a|b",)


def test_a_column_is_kept_once():
    with pytest.raises(ConfigError, match=r"input\.keep='text,text', it must be a list without repeats"):
        load_config(AnnotateConfig, options=MINIMAL | {"input.keep": "text,text"})


def test_a_pipe_is_no_config_file(tmp_path: Path):
    os.mkfifo(tmp_path / "job.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(AnnotateConfig, file=tmp_path / "job.yaml", options=MINIMAL)


def test_all_problems_come_at_once_with_the_users_names():
    overrides = ["input.limt=3", "modle.dtype=float32", "model.dtype=float64", "input.limit=0", "run.nothing"]
    with pytest.raises(ConfigError) as caught:
        load_config(AnnotateConfig, options={"input.paths": ["corpus"]}, overrides=overrides)
    text = str(caught.value)
    assert "input.limt is unknown; did you mean 'limit'?" in text
    assert "modle is unknown; did you mean 'model'?" in text
    assert "model.dtype='float64', it must be 'float32' or 'bfloat16'" in text
    assert "input.limit='0', it must be greater than or equal to 1" in text
    assert "'run.nothing', it must look like section.field=value" in text
    assert "output.path is missing; give it as --output DIRECTORY" in text


class Inner(Section):
    scale: float = 1.0


class Outer(Section):
    inner: Inner = Inner()


class Nested(Section):
    outer: Outer | None = None
    heads: dict[str, Outer] = Field(default_factory=dict)


def test_sections_of_sections_are_set_and_named_by_more_dots(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("outer:\n")
    words = ["outer.inner.scale=2", "heads.topic.inner.scale=3"]
    config = load_config(Nested, file=tmp_path / "empty.yaml", overrides=words)
    assert config.outer is not None
    assert (config.outer.inner.scale, config.heads["topic"].inner.scale) == (2.0, 3.0)
    assert all(is_override(Nested, word) for word in words)
    wrong = ["outer.inner.scale=x", "outer.inner.scal=1", "heads.topic.inner.scale=y", "heads.topic.iner=1"]
    with pytest.raises(ConfigError) as caught:
        load_config(Nested, overrides=[*wrong, "outer.inner.scale.a.b=1"])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("override 'outer.inner.scale.a.b=1', it must look like")
    for line, start in zip(
        lines[1:],
        [
            "outer.inner.scale='x', it must be",
            "outer.inner.scal is unknown; did you mean 'scale'?",
            "heads.topic.inner.scale='y', it must be",
            "heads.topic.iner is unknown; did you mean 'inner'?",
        ],
        strict=True,
    ):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("input: {limit: 1}\ninput: {limit: 2}\n", "twice"),
        ("[1, 2]", "sections"),
        ("1: {}", "sections"),
        ("input: {", "no plain YAML"),
        ("!!python/object/apply:os.system ['true']", "no plain YAML"),
        ("[" * 100_000, "no plain YAML"),
        ("#" * (1 << 21), "larger than"),
        ("a: 2020-99-99", "no plain YAML"),
    ],
)
def test_only_small_plain_yaml_is_read(tmp_path: Path, content: str, problem: str):
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=problem):
        load_config(AnnotateConfig, file=file, options=MINIMAL)


def test_an_absent_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        load_config(AnnotateConfig, file=tmp_path / "nowhere.yaml")


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_override_is_read_or_refused(name: str, value: str):
    text = f"{name}={value}"
    is_override(AnnotateConfig, text)
    with contextlib.suppress(ConfigError):
        load_config(AnnotateConfig, options=MINIMAL, overrides=[text])


def test_paths_with_an_equals_sign_are_no_overrides():
    assert is_override(AnnotateConfig, "input.limit=3")
    assert not is_override(AnnotateConfig, "data/lang=de/part.0=1.txt")
    assert not is_override(AnnotateConfig, "corpus.txt")
