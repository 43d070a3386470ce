"""Recipes: each is a config, reads data as it is distributed, and trains; what the user says wins."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.config import ConfigError
from pipelines.examples import ExampleSource, ExampleSummary, check_examples, open_examples
from pipelines.examples.asked import read_settings
from pipelines.finetune import command_line
from pipelines.finetune.config import DataSection, FinetuneConfig
from pipelines.finetune.plan import plan_steps
from pipelines.finetune.prepare import CHECKPOINTS, DATA, MODEL, START, prepare
from pipelines.finetune.recipe import recipe_file, recipes
from pipelines.finetune.start import open_start, write_trained
from pipelines.finetune.training import train
from xlmr_core.checkpoint import Checkpoint


def objects(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(*rows: str) -> str:
    """Tab-separated fields, here with " | " between."""
    return "".join(row.replace(" | ", "\t") + "\n" for row in rows)


MULTINLI = [
    {
        "annotator_labels": [label],
        "genre": "fiction",
        "gold_label": label,
        "pairID": f"{number}e",
        "promptID": f"{number}",
        "sentence1": "Anna wohnt in Bern.",
        "sentence1_binary_parse": "( Anna )",
        "sentence1_parse": "(ROOT )",
        "sentence2": second,
        "sentence2_binary_parse": "( Anna )",
        "sentence2_parse": "(ROOT )",
    }
    for number, (label, second) in enumerate((("entailment", "Sie wohnt."), ("contradiction", "Sie wohnt in Rom.")))
]
XNLI = {
    "language": "sw",
    "gold_label": "neutral",
    **dict.fromkeys(["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"], ""),
    "sentence1": "Habari.",
    "sentence2": "Salamu.",
    **dict.fromkeys(["promptID", "pairID"], "1"),
    "genre": "facetoface",
    **dict.fromkeys(["label1", "label2", "label3", "label4", "label5"], "neutral"),
    **dict.fromkeys(["sentence1_tokenized", "sentence2_tokenized"], "x"),
    "match": "True",
}
WIKIANN = {"tokens": ["Anna", "wohnt"], "ner_tags": ["B-PER", "O"], "langs": ["de", "de"], "spans": ["PER: Anna"]}
UD = table(
    "# sent_id = 1",
    "# text = Anna schläft.",
    "1 | Anna | Anna | PROPN | NE | _ | 2 | nsubj | _ | _",
    "2 | schläft | schlafen | VERB | VVFIN | _ | 0 | root | _ | SpaceAfter=No",
    "3 | . | . | PUNCT | $. | _ | 2 | punct | _ | _",
    "",
)
ANNA = "Anna wohnt in Bern. Sie arbeitet dort."
ANSWERED = {"id": "1", "question": "Wo wohnt Anna?", "answers": [{"text": "Bern", "answer_start": 14}]}
UNANSWERED = {"id": "2", "question": "Wer kocht?", "answers": [], "is_impossible": True}
SQUAD = {"title": "A", "paragraphs": [{"context": ANNA, "qas": [ANSWERED, UNANSWERED]}]}
FLAT_SQUAD = {"id": "1", "title": "A", "context": ANNA, "question": "Wo?"}
COPA = {
    "premise": "Die Straße ist nass.",
    "choice1": "Es regnete.",
    "choice2": "Die Sonne schien.",
    "question": "cause",
}
SIQA = {
    "context": "Anna ist müde.",
    "question": "Was will sie tun?",
    "answerA": "ruhen",
    "answerB": "essen",
    "answerC": "gehen",
}

PASSAGE = {"docid": "5#1", "title": "Bern", "text": "Anna wohnt in Bern."}
MR_TYDI = {"query_id": "1", "query": "Wo?", "positive_passages": [PASSAGE], "negative_passages": [PASSAGE]}

# A recipe, its data as they are distributed (file and content), and what else is typed.
FORMS = [
    ("xnli", "multinli_1.0_train.jsonl", objects(*MULTINLI), []),
    (
        "xnli",
        "xnli.dev.tsv",
        table(*(" | ".join(row) for row in (XNLI, XNLI.values(), (XNLI | {"gold_label": "entailment"}).values()))),
        [],
    ),
    (
        "xnli",
        "multinli.train.sw.tsv",
        table("premise | hypo | label", "Habari. | Salamu. | neutral", "Ndiyo. | Hapana. | contradiction"),
        [],
    ),
    ("ner", "train.tsv", table("Anna | B-PER", "wohnt | O", "in | O", "Bern | B-LOC", ""), []),
    ("ner", "eng.train", "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n", ["data.format=conll"]),
    ("ner", "wikiann.jsonl", objects(WIKIANN), []),
    ("pos", "de_gsd-ud-train.conllu", UD, []),
    ("pos", "train-de.tsv", table("Anna | PROPN", "schläft | VERB", ""), []),
    ("qa", "train-v2.0.json", json.dumps({"version": "v2.0", "data": [SQUAD]}), []),
    ("qa", "squad.jsonl", objects(FLAT_SQUAD | {"answers": {"text": ["Bern"], "answer_start": [14]}}), []),
    ("xcopa", "et.val.jsonl", objects(COPA | {"label": 0, "idx": 0, "changed": False}), []),
    ("xcopa", "siqa.train.jsonl", objects(SIQA | {"label": "1"}), ["data.first_choice=1"]),
    (
        "sentiment",
        "train.jsonl",
        objects({"text": "Wie schön!", "label": "positive"}, {"text": "Schade!", "label": "negative"}),
        [],
    ),
    (
        "sentiment",
        "ts_train.tsv",
        table("ID | tweet | label", "ts_1 | @user Wa famba | negative", "ts_2 | @user Inkomu | positive"),
        [],
    ),
    (
        "topic",
        "train.tsv",
        table("index_id | category | text", '431 | sports | "Das ""Spiel"" endet."', "432 | travel | Reise."),
        [],
    ),
    ("language-identification", "train.csv", "labels,text\npt,os chefes\nbg,размерът на\n", []),
    ("embeddings", "triplets.jsonl", objects({"query": "Wo?", "pos": ["In Bern."], "neg": ["Um acht.", "Anna."]}), []),
    ("embeddings", "mr-tydi.jsonl", objects(MR_TYDI), []),
    ("embeddings", "pairs.csv", "sentence1,sentence2\nEs regnet.,Regen fällt.\n", ["data.vectors.symmetric=true"]),
    ("mlm-continuation", "texts.de.txt", "Regen fällt auf die Stadt.\n\nSchnee liegt auf dem Feld.\n", []),
    ("mlm-continuation", "texts.jsonl", objects({"text": "Regen fällt auf die Stadt.", "lang": "de"}), []),
]
# Published data of the same kind, where it is at hand; SIQA and COPA, MultiNLI and English WikiANN are not.
SHARED = [
    ("xnli", ["nli/farstail", "nli/jnli", "nli/klue"], 2_900),
    ("ner", ["ner/hiner", "ner/europeana"], 503),
    ("pos", ["pos/ud"], 3_000),
    ("qa", ["qa/xquad"], 2_254),
    ("xcopa", ["mc/xcopa"], 1_100),
    ("sentiment", ["seqcls/afrisenti"], 4_798),
    ("topic", ["seqcls/sib200"], 14_400),
    ("mlm-continuation", ["parallel/ntrex/deu.txt", "parallel/ntrex/heb.txt"], 922),
]


def asked(recipe: str, *words: str, **typed: object) -> FinetuneConfig:
    """What `xlmr finetune --recipe RECIPE WORDS` asks for."""
    given = {"train": ["texts"], "output": "out", "settings": list(words)} | typed
    return command_line.config_of(given, recipe=recipe_file(recipe))


def source(config: FinetuneConfig) -> ExampleSource:
    data = section(config)
    return open_examples(data.train, read_settings(data, data.task))


def section(config: FinetuneConfig) -> DataSection:
    assert config.data is not None
    return config.data


def summary(config: FinetuneConfig) -> ExampleSummary:
    return check_examples({"training": source(config)})["training"]


def run(config: FinetuneConfig) -> dict[str, float]:
    """A whole run without Ray; the last line of its metrics."""
    output = Path(config.output.path)
    goals = list(prepare(config).goals.values())
    learner = open_start(output / START, goals)
    steps, settings = plan_steps(config, learner, output / DATA)
    *_, last = train(learner, steps, settings, output / CHECKPOINTS)
    write_trained(output / MODEL, learner, goals, tokenizer=output / START)
    return last


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_a_config_that_names_its_sources(name: str):
    text = recipe_file(name).read_text(encoding="utf-8")
    assert asked(name).model.path.startswith("FacebookAI/xlm-roberta-")
    above = text[: text.index("\ndata:\n")].splitlines()
    assert all(line.startswith("#") for line in above)
    for part in ("# Data:", "# Hyper-parameters:", "# Published"):
        assert any(line.startswith(part) for line in above)
    assert re.search(r"et al\. 20\d\d|card of", text)


@pytest.mark.parametrize(("recipe", "name", "content", "words"), FORMS, ids=[form[1] for form in FORMS])
def test_a_recipe_reads_its_data_as_it_is_distributed_and_trains(
    recipe: str, name: str, content: str, words: list[str], tmp_path: Path, make_checkpoint
):
    (tmp_path / name).write_text(content, encoding="utf-8")
    model = str(make_checkpoint("XLMRobertaModel", max_position_embeddings=514))
    output = str(tmp_path / "out")
    config = asked(recipe, *words, train=[str(tmp_path / name)], model=model, steps=2, output=output)
    read = summary(config)
    assert (read.rejected, read.examples > 0) == ({}, True)
    # What is learnt from a pair must not be learnt from its first text alone.
    paired = recipe in ("xnli", "qa", "xcopa", "embeddings")
    assert all(bool(example.second) == paired for example in source(config))
    assert run(config)["step"] == 2
    written = Checkpoint.open(str(tmp_path / "out" / MODEL))
    assert written.task == section(config).task
    if read.label_set:
        assert written.config.id2label == read.label_set
    if recipe == "embeddings":
        assert written.embedding is not None
        assert dict(written.embedding.prompts) == {"query": "query: ", "document": "passage: "}
        assert (written.embedding.pooling.modes, written.embedding.normalize) == (("mean",), True)


@pytest.mark.parametrize(("recipe", "folders", "examples"), SHARED, ids=[form[0] for form in SHARED])
def test_a_recipe_reads_published_data_whole(shared_data: Path, recipe: str, folders: list[str], examples: int):
    read = summary(asked(recipe, train=[str(shared_data / folder) for folder in folders]))
    assert (read.examples, read.rejected) == (examples, {})


def test_a_language_model_goes_on_with_texts_and_pairs(tmp_path: Path, make_checkpoint):
    for language, text in (("de", "Regen fällt."), ("en", "Rain falls.")):
        (tmp_path / f"news.{language}.txt").write_text(f"{text}\n" * 3, encoding="utf-8")
    files = [str(tmp_path / f"news.{language}.txt") for language in ("de", "en")]
    model = str(make_checkpoint("XLMRobertaForMaskedLM"))
    typed = {"train": files, "parallel": files, "model": model, "steps": 2, "output": str(tmp_path / "out")}
    assert run(asked("mlm-continuation", **typed))["step"] == 2
    causal = {
        "train": [str(tmp_path / "*.txt")],
        "task": "causal-lm",
        "model": model,
        "output": str(tmp_path / "causal"),
    }
    assert run(asked("mlm-continuation", **causal, steps=2, batch_tokens=8))["step"] == 2


def test_what_is_said_wins_over_the_recipe(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("training: {epochs: 7, learning_rate: 1.0e-4, seed: 3}\nmodel: {max_length: 64}\n")
    config = asked("xnli", "training.learning_rate=1e-3", config=file, learning_rate=1e-2, epochs=8.0)
    # The recipe, the file, the option, the word.
    assert (config.training.batch_records, config.model.on_long) == (32, "truncate")
    assert (config.training.seed, config.model.max_length) == (3, 64)
    assert (config.training.epochs, config.training.learning_rate) == (8.0, 1e-3)


def test_an_option_of_zero_is_said_and_epochs_win_over_steps_of_a_file(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("training: {steps: 5, seed: 3}\n")
    config = asked("mlm-continuation", config=file, sampling=0.0, seed=0, epochs=2.0)
    assert (section(config).sampling, config.training.seed, config.training.steps) == (0.0, 0, None)
    assert asked("mlm-continuation", config=file, seed=0).training.steps == 5


def test_recipes_are_listed_and_an_unknown_one_is_refused():
    listed = CliRunner().invoke(app, ["finetune", "--recipe", "list"])
    assert listed.exit_code == 0
    assert all(f"{name} " in listed.output and purpose in listed.output for name, purpose in recipes().items())
    refused = CliRunner().invoke(app, ["finetune", "--recipe", "xnly", "--train", "x", "--output", "o"])
    assert (refused.exit_code, "did you mean 'xnli'?" in refused.output) == (2, True)
    with pytest.raises(ConfigError, match=r"recipe=\.\./qa is unknown"):
        recipe_file("../qa")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["data.train is missing; give it as --train FILE", "output.path is missing"]),
        (["texts.txt"], ["texts.txt: these must look like section.field=value"]),
        (
            ["--train", "x", "--output", "o", "--sampling", "2"],
            ["data.sampling=2.0, it must be less than or equal to 1"],
        ),
        (["--objective", "poetry"], ["'masked-lm', 'causal-lm'"]),
    ],
)
def test_a_wrong_pretrain_command_is_answered_with_all_that_is_wrong(arguments: list[str], words: list[str]):
    result = CliRunner().invoke(app, ["pretrain", *arguments])
    assert result.exit_code == 2
    for word in words:
        assert word in result.output


def test_pretrain_is_the_recipe_with_what_is_typed(monkeypatch: pytest.MonkeyPatch):
    trained: list[FinetuneConfig] = []
    monkeypatch.setattr(command_line, "train", trained.append)
    common = ["pretrain", "--train", "a.txt", "--train", "b.txt", "--output", "o"]
    more = ["--parallel", "x", "--parallel", "y", "--fresh", "--batch-tokens", "9", "--objective", "causal-lm"]
    for arguments in ([], more):
        assert CliRunner().invoke(app, [*common, *arguments]).exit_code == 0
    plain, rich = trained
    assert plain == asked("mlm-continuation", train=["a.txt", "b.txt"], output="o")
    assert (section(plain).task, section(plain).sampling, plain.model.fresh) == ("fill-mask", 0.3, False)
    assert (section(rich).task, section(rich).parallel, section(rich).batch_tokens) == ("causal-lm", ("x", "y"), 9)
    assert rich.model.fresh
