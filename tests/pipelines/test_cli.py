import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines.cli import app

COMMANDS = ["annotate", "verify", "report", "plan", "run", "doctor"]


def xlmr(*words: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=text)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.jsonl").write_text("".join(json.dumps({"body": f"text {i}"}) + "\n" for i in range(50)))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str):
    result = xlmr(command, "--help")
    assert result.exit_code == 0
    assert "Example: xlmr" in result.stdout


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app; "
        "CliRunner().invoke(app, ['annotate', '--help']); "
        "print([name for name in ('ray', 'torch', 'pyarrow', 'xlmr_core.graph') if name in sys.modules])"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - began < 10


def test_plan_says_what_would_be_done(corpus: Path, tasks: list[str]):
    result = xlmr("plan", corpus, "--text-column", "body", "--task", tasks[0], "run.shard_rows=20")
    assert result.exit_code == 0, result.output
    assert "a.jsonl: jsonl, 50 rows" in result.stdout
    assert "1 files, 50 records in 3 shards of at most 20, about" in result.stdout


def test_run_annotates_one_text_or_lines(tasks: list[str]):
    one = xlmr("run", "--task", tasks[0], "Ein kurzer Satz.")
    assert one.exit_code == 0, one.output
    assert json.loads(one.stdout)["topic_label"] in "abc"
    lines = xlmr("run", "--task", tasks[0], text="Ein kurzer Satz.\n\nthree\n")
    rows = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "empty", "ok"]
    expected = json.loads(one.stdout)
    # Rounding may differ with the company that a text is computed in.
    assert rows[0].pop("topic_score") == pytest.approx(expected.pop("topic_score"), abs=1e-5)
    assert rows[0] == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan"], "input.paths is missing"),
        (["plan", "nowhere.txt"], "no such file"),
        (["plan", "CORPUS"], "has no column 'text' in its first 1,000 records, its columns are: body"),
        (["plan", "CORPUS", "input.limt=3"], "did you mean 'limit'?"),
        (["plan", "CORPUS", "--limit", "0"], "input.limit=0, it must be greater than or equal to 1"),
        (["plan", "CORPUS", "--text-column", "body", "--task", "x=/nowhere"], "/nowhere"),
        (["plan", "CORPUS", "--text-column", "body", "--task", "nonsense"], "NAME=MODEL"),
        (["plan", "CORPUS", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["annotate", "CORPUS"], "output.path is missing"),
        (["annotate", "CORPUS", "--output", "out", "--on-error", "ignore"], "output.on_error='ignore'"),
        (["run", "--task", "x=/nowhere", "text"], "/nowhere"),
        (["annotate", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_usage_is_code_2_and_one_clear_message(corpus: Path, tasks: list[str], words: list[str], message: str):
    words = [word.replace("CORPUS", str(corpus)) for word in words]
    tasked = "--task" in words or words[0] != "plan" or "--no-such-option" in words
    result = xlmr(*words, *([] if tasked else ["--task", tasks[0]]))
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_verify_finds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    result = xlmr("verify", "out")
    assert result.exit_code == 1
    assert "is not sound" in result.output
    assert "\nout/_SUCCESS: cannot be read" in result.output
    assert "the job is not finished; run the same xlmr annotate again" in result.output


@pytest.mark.parametrize(("text", "code"), [("a\udcff", "undecodable"), ("a\ud800", "lone_surrogate")])
def test_a_text_that_is_none_fails_and_says_why(tasks: list[str], text: str, code: str):
    result = xlmr("run", "--task", tasks[0], text)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"].startswith(f"{code}: ")


def test_a_line_that_is_not_utf8_spoils_only_itself(tasks: list[str]):
    result = CliRunner().invoke(app, ["run", "--task", tasks[0]], input=b"fine\n\xff\nfine\n")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["error"].startswith("undecodable: ")


@pytest.mark.usefixtures("local_ray")
def test_a_job_from_a_file_can_be_verified_and_repeated(corpus: Path, tasks: list[str], tmp_path: Path):
    config = tmp_path / "job.yaml"
    lines = [f"input: {{paths: ['{corpus}'], text_column: body}}", "model:", "  tasks:", f"    - {tasks[0]}"]
    config.write_text("\n".join(lines))
    first = xlmr("annotate", "--config", config, "--output", tmp_path / "out", "run.shard_rows=20")
    assert first.exit_code == 0, first.output
    assert "50" in first.stdout
    assert "in 3 shards" in first.stdout
    checked = xlmr("verify", tmp_path / "out")
    assert checked.exit_code == 0, checked.output
    assert "50 records in 3 shards" in checked.stdout
    again = xlmr("annotate", "--config", config, "--output", tmp_path / "out")
    assert again.exit_code == 0, again.output
    assert "nothing to do" in again.stdout
    other = xlmr("annotate", "--config", config, "--output", tmp_path / "out", "--limit", 5)
    assert other.exit_code == 2
    assert "another job" in other.output


def test_the_text_of_an_unforeseen_exception_may_quote_records_and_stays_out(
    tasks: list[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise ValueError("words of a user")

    monkeypatch.setattr("pipelines.annotate.quick.annotate_lines", fail)
    result = xlmr("run", "--task", tasks[0], "text")
    assert result.exit_code == 1
    assert "ValueError" in result.output
    assert "words of a user" not in result.output
