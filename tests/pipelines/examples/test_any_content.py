"""Whatever stands in a file: an example, a rejected record or one InputError, and nothing else."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.examples import Example, ReadSettings, check_examples, open_examples
from pipelines.examples.columns import _NAMES
from pipelines.examples.example import Task
from xlmr_core.errors import InputError

ROOT = Path(__file__).parents[4]
LEAF = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4)
KEYS = st.sampled_from(["text", "label", "answer_start", "start", "end", "x"])
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
BYTES = st.binary(max_size=60) | st.lists(
    st.sampled_from(list(b'\t\n\r ,"#{}[]-1.2_aO:\xc3\xa4\xef\xbb\xbf')), max_size=60
).map(bytes)


def columns_of(task: str) -> list[str]:
    return [names[0] for names in _NAMES[task].values()] + ["language", "id"]


@pytest.mark.parametrize("task", get_args(Task))
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_values_are_examples_or_rejected(tmp_path: Path, task: str, data: st.DataObject):
    record = data.draw(st.fixed_dictionaries(dict.fromkeys(columns_of(task), VALUE)))
    if task == "token-classification":
        del record[data.draw(st.sampled_from(["words", "entities"]))]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    options = data.draw(st.sampled_from([{}, {"problem_type": "regression"}, {"label_names": ("x", "y")}]))
    try:
        source = open_examples([path], ReadSettings(task, **options))
    except InputError:
        return
    (found,) = source.records()
    if isinstance(found, Example):
        json.dumps([found.text, found.second, found.language, found.id], ensure_ascii=False).encode()
    else:
        assert found.problem.code


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.conll", "a.conllu", "a.txt"])
@given(content=BYTES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    tagging = name.startswith("a.conll")
    for task in ("token-classification", "fill-mask") if tagging else ("sequence-classification", "fill-mask"):
        # Anything but an InputError fails the test.
        with contextlib.suppress(InputError):
            check_examples({"x": open_examples([path], ReadSettings(task, on_error="quarantine"))})


def test_the_room_loads_neither_ray_nor_torch():
    absent = ["ray", "torch", "datasets", "transformers"]
    code = f"import sys, pipelines.examples; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
