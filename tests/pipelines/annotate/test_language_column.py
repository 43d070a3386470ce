"""`--language-column`: each record's language reaches the thresholds, in jobs of every format and in datasets."""

import json
import logging
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines
from pipelines.annotate.encoded import encoded_from_cells, encoded_to_cells
from pipelines.annotate.inputs import expand_inputs
from pipelines.annotate.job import annotate
from pipelines.annotate.plan import Columns, Plan, make_plan
from pipelines.annotate.prepare import UsageError, prepare
from pipelines.annotate.read import read_shard
from pipelines.annotate.rows import annotated_rows, parse_tasks, tokenise_rows
from pipelines.annotate.verify import verify
from pipelines.config import AnnotateConfig, load_config
from xlmr_core.checkpoint import HeadCalibration, save_calibration
from xlmr_core.errors import InputError
from xlmr_core.graph import EncodedRecords, GraphPlan, ModelGraph, Preprocessor

LABELS = ["a", "b", "c"]
LANGUAGES = ["de", "fr", None, "sw", ""]
# Of no language nothing is given, in German everything, in French the first label.
CALIBRATION = HeadCalibration(
    "sigmoid", 1.5, dict.fromkeys(LABELS, 1.0), {"de": dict.fromkeys(LABELS, 0.0), "fr": {"a": 0.0}}
)
GIVEN = {"de": ["a", "b", "c"], "fr": ["a"]}


@pytest.fixture(scope="module")
def model(make_checkpoint, tmp_path_factory):
    # Narrow, so that no score rounds to 1.
    made = make_checkpoint(
        "XLMRobertaForSequenceClassification",
        labels=LABELS,
        problem_type="multi_label_classification",
        initializer_range=0.1,
    )
    copy = shutil.copytree(made, tmp_path_factory.mktemp("calibrated") / "model")
    save_calibration(copy, CALIBRATION)
    return copy


def config_of(tmp_path, source, task, **options):
    given = {"input.paths": [str(source)], "output.path": str(tmp_path / "out"), "model.tasks": [task]}
    return load_config(AnnotateConfig, options=given | options)


@pytest.mark.usefixtures("local_ray")
def test_a_job_gives_each_record_the_labels_of_its_language(model, tmp_path):
    rows = [{"id": n, "text": f"text number {n}", "lang": LANGUAGES[n % 5]} for n in range(20)]
    rows += [{"id": 20, "text": "no column"}, {"id": 21, "text": "", "lang": "de"}, {"id": 22, "text": "x", "lang": 5}]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"input.language_column": "lang", "input.id_column": "id", "run.shard_rows": 7}
    annotate(config_of(tmp_path, source, f"t={model}", **options))
    out = tmp_path / "out"
    assert verify(out).problems == []
    found = {row["id"]: row for row in pq.read_table(out / "data").to_pylist()}
    assert {n: row["t_labels"] for n, row in found.items() if n < 20} == {
        n: GIVEN.get(LANGUAGES[n % 5], []) for n in range(20)
    }
    assert found[20]["t_labels"] == []
    assert found[21]["t_labels"] is None
    (wrong,) = pq.read_table(out / "quarantine").to_pylist()
    assert (wrong["id"], wrong["code"]) == ("22", "not_a_string")
    assert "column 'lang' is a int" in wrong["message"]
    assert "language_column" in (out / "report.html").read_text()


@pytest.mark.usefixtures("local_ray")
def test_a_dataset_does_the_same(model):
    import ray

    items = [{"text": f"text number {n}", "lang": LANGUAGES[n % 5], "n": n} for n in range(20)]
    dataset = pipelines.annotate(ray.data.from_items(items), {"t": str(model)}, language_column="lang", batch_size=8)
    found = {row["n"]: row["t_labels"] for row in dataset.take_all()}
    assert {n: list(labels) for n, labels in found.items()} == {n: GIVEN.get(LANGUAGES[n % 5], []) for n in range(20)}


def test_a_table_in_memory_does_the_same(model):
    graph = ModelGraph(GraphPlan.resolve(parse_tasks([f"t={model}"])))
    preprocess = Preprocessor(graph.plan)
    table = pa.table({"text": ["one", None, "three", "", "five"], "lang": ["de", "de", None, "fr", "fr"]})
    rows = tokenise_rows(preprocess, table, "text", language_column="lang")
    found = annotated_rows(graph.plan, rows, graph(rows.encoded)).to_pylist()
    assert [row["t_labels"] for row in found] == [["a", "b", "c"], None, [], None, ["a"]]
    assert [row["status"] for row in found] == ["ok", "failed", "ok", "empty", "ok"]
    with pytest.raises(InputError, match="column 'sprache' is missing"):
        tokenise_rows(preprocess, table, "text", language_column="sprache")


def test_a_text_that_breaks_the_tokenizer_takes_its_language_along(model):
    class Fragile(Preprocessor):
        def __call__(self, texts, *others):
            if any("!" in text for text in texts):
                raise RuntimeError("as some library does")
            return super().__call__(texts, *others)

    graph = ModelGraph(GraphPlan.resolve(parse_tasks([f"t={model}"])))
    table = pa.table({"text": ["bad!", "one", "bad!", "two"], "lang": ["sw", "de", "sw", "fr"]})
    rows = tokenise_rows(Fragile(graph.plan), table, "text", language_column="lang")
    found = annotated_rows(graph.plan, rows, graph(rows.encoded)).to_pylist()
    assert [row["t_labels"] for row in found] == [None, ["a", "b", "c"], None, ["a"]]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_languages(format, tmp_path):
    values = ["de", "fr", "sw"]
    file = tmp_path / f"in.{format}"
    if format == "parquet":
        encoded = pa.array(values).dictionary_encode()
        pq.write_table(pa.table({"text": values, "meta": pa.StructArray.from_arrays([encoded], ["lang"])}), file)
        name = "meta.lang"
    else:
        name = "lang"
        lines = [json.dumps({"text": value, "lang": value}) for value in values]
        file.write_text("\n".join(lines if format == "jsonl" else ["text,lang", *(f"{v},{v}" for v in values)]) + "\n")
    plan = make_plan(expand_inputs([file]), Columns(language=name), shard_rows=2)
    assert Plan.from_json(plan.to_json()) == plan
    assert [read_shard(shard, plan.columns).languages for shard in plan.shards] == [["de", "fr"], ["sw"]]
    plan = make_plan(expand_inputs([file]), Columns(), shard_rows=5)
    assert [read_shard(shard, plan.columns).languages for shard in plan.shards] == [None]


def test_a_language_column_that_is_none_is_refused(model, tmp_path, tasks):
    pq.write_table(pa.table({"text": ["x"], "lang": [5]}), tmp_path / "in.parquet")
    source, task = tmp_path / "in.parquet", f"t={model}"
    for column, chosen, said in (
        ("lang", task, "column 'lang' is int64, languages must be strings"),
        ("sprache", task, "no column 'sprache'"),
        ("text", tasks[0], "a language column was given, no task has thresholds by language; leave it out or keep it"),
        ("text", f"{task},threshold=0.5", "a language column was given, no task has thresholds by language"),
    ):
        with pytest.raises(UsageError, match=said):
            prepare(config_of(tmp_path, source, chosen, **{"input.language_column": column}))


def test_thresholds_by_language_without_a_column_are_said(model, tmp_path, caplog):
    (tmp_path / "in.jsonl").write_text('{"text": "x", "lang": "de"}\n')
    source, task = tmp_path / "in.jsonl", f"t={model}"
    with caplog.at_level(logging.WARNING):
        prepare(config_of(tmp_path, source, task, **{"input.language_column": "lang"}))
        assert not caplog.text
        prepare(config_of(tmp_path, source, task))
    assert "has thresholds by language, those for all languages are used" in caplog.text


def test_a_calibration_or_a_language_column_makes_another_job_and_none_makes_the_old_one(model, tmp_path, tasks):
    (tmp_path / "in.jsonl").write_text('{"text": "x", "lang": "de"}\n')
    source, task = tmp_path / "in.jsonl", f"t={model}"
    plain = prepare(config_of(tmp_path, source, tasks[0])).fingerprint
    assert "language_column" not in plain["inputs"]
    assert "temperature" not in plain["model"]["annotations"]["topic"]
    with_column = prepare(config_of(tmp_path, source, task, **{"input.language_column": "lang"}))
    without = prepare(config_of(tmp_path, source, task))
    assert with_column.fingerprint_sha256 != without.fingerprint_sha256
    assert with_column.fingerprint["inputs"]["language_column"] == "lang"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=6))
def test_languages_travel_between_workers_as_they_are(languages):
    encoded = EncodedRecords((), (), languages=tuple(languages))
    table = pa.table(encoded_to_cells(encoded))
    assert encoded_from_cells(table).languages == tuple(languages)
    assert encoded_from_cells(pa.table(encoded_to_cells(EncodedRecords((), (), texts=("a",))))).languages is None
