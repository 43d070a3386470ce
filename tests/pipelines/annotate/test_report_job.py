"""The report of a real job: hostile labels and texts, every kind of status, languages that came with the input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.annotate.job import annotate
from pipelines.annotate.report import gather, report_path, write_report
from pipelines.annotate.verify import verify
from pipelines.cli import app
from pipelines.config import AnnotateConfig, load_config

LABELS = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "לשון", "語言" * 20]
SECRET = "Geheimnis"
LANGUAGES = ["deu", "en-US", "ar", "<b>no code</b>", None]


@pytest.fixture(scope="module")
def config(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> AnnotateConfig:
    folder = tmp_path_factory.mktemp("report")
    rows: list[dict[str, object]] = [
        {"text": f"{SECRET} <i>{i}</i> & {'Wort ' * (i % 90)}\u202e", "lang": LANGUAGES[i % 5]} for i in range(160)
    ]
    rows += [{"text": text, "lang": "en-US"} for text in (None, 5, "", "  ", None)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    single = make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS, seed=5)
    number = make_checkpoint("XLMRobertaForSequenceClassification", labels=["stars"], problem_type="regression", seed=6)
    tag = make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X<br>", "I-X<br>"], seed=7)
    embed = make_checkpoint("XLMRobertaModel", seed=3)
    return load_config(
        AnnotateConfig,
        options={
            "input.paths": [str(folder / "in.jsonl")],
            "input.keep": "lang",
            "model.tasks": [
                f"topic={single}",
                f"several={single},problem_type=multi_label_classification",
                f"stars={number}",
                f"names={tag}",
                f"vector={embed},task=embedding,pooling=mean",
            ],
            "model.on_long": "truncate",
            "output.path": str(folder / "out"),
            "run.shard_rows": 20,
        },
    )


@pytest.fixture(scope="module")
def output(config: AnnotateConfig) -> Path:
    annotate(config)
    return Path(config.output.path)


def test_a_job_leaves_a_report_that_the_proof_does_not_mind(output: Path):
    assert report_path(output).is_file()
    assert verify(output).problems == []
    report_path(output).write_text("edited")
    assert verify(output).problems == []
    write_report(output)


def test_the_counts_are_those_of_the_rows(output: Path):
    totals = gather(output).totals
    assert (totals.rows, totals.ok, totals.quarantined, totals.uncounted) == (165, 162, 3, 0)
    assert totals.codes == {"null": 2, "not_a_string": 1}
    assert totals.statuses["empty"] == 2
    counts = totals.counts
    assert sum(counts["lengths"].values()) == 162
    assert counts["long"] == 0
    assert sum(counts["columns"]["topic_label"]["labels"].values()) == 160
    assert sum(counts["columns"]["stars_score"]["scores"].values()) == 160
    assert set(counts["columns"]["names_entities"]["labels"]) <= {"X<br>"}
    languages = counts["languages"]["lang"]
    assert {code: entry["rows"] for code, entry in languages.items()} == {
        "deu": 32,
        "en-US": 34,
        "ar": 32,
        "?": 32,
        "": 32,
    }
    assert {code: entry.get("quarantined", 0) for code, entry in languages.items() if code != "en-US"} == {
        "deu": 0,
        "ar": 0,
        "?": 0,
        "": 0,
    }
    assert languages["en-US"]["quarantined"] == 3
    assert sum(entry.get("truncated", 0) for entry in languages.values()) == totals.statuses["truncated"] > 0
    assert 0 < totals.timeline.seconds() < 600
    assert sum(totals.timeline.tokens.values()) == pytest.approx(totals.encoder_tokens)


def test_no_text_is_in_the_report_or_the_commits_unless_asked_for(output: Path, config: AnnotateConfig):
    for path in (report_path(output), *(output / "run" / "commits").iterdir()):
        content = path.read_text()
        assert SECRET not in content
        assert "no code" not in content
    page = write_report(output, samples=25).read_text()
    assert page.count(f'<blockquote dir="auto">{SECRET} &lt;i&gt;') == 25
    write_report(output)
    assert SECRET not in report_path(output).read_text()


def test_the_option_asks_for_samples_and_a_missing_report_is_made_up_for(output: Path, config: AnnotateConfig):
    report_path(output).unlink()
    asked = config.model_copy(update={"output": config.output.model_copy(update={"report_samples": 3})})
    assert annotate(asked).finished_before
    assert report_path(output).read_text().count("<blockquote") == 3
    write_report(output)


def test_samples_say_so_when_their_input_changed(output: Path, config: AnnotateConfig):
    inputs = Path(config.input.paths[0])
    kept = inputs.read_bytes()
    try:
        inputs.write_bytes(kept + b"{}\n")
        (row,) = gather(output, samples=1).samples
        assert row.text is None
        assert dict(row.annotations)["topic_label"] in LABELS
    finally:
        inputs.write_bytes(kept)


def test_the_command_writes_it_again_and_says_where(output: Path):
    done = CliRunner().invoke(app, ["report", str(output), "--report-samples", "2"])
    assert (done.exit_code, done.output.strip()) == (0, str(report_path(output)))
    assert report_path(output).read_text().count("<blockquote") == 2
    assert CliRunner().invoke(app, ["report", str(output)]).exit_code == 0
    assert "<blockquote" not in report_path(output).read_text()
    too_many = CliRunner().invoke(app, ["report", str(output), "--report-samples", "1000"])
    assert too_many.exit_code == 2
    assert "output.report_samples=1000, it must be less than or equal to 200" in too_many.output
    assert CliRunner().invoke(app, ["report", str(output.parent)]).exit_code == 1


def test_hostile_labels_and_texts_are_text(output: Path):
    page = write_report(output, samples=5).read_text()
    write_report(output)
    assert "<script" not in page
    assert "<img" not in page
    assert "<br>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
