"""Tagging: offsets in every unit through the graph; targets and loss against transformers' own."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.graph.windows import windowed_records
from xlmr_core.tasks.columns import to_list
from xlmr_core.tasks.tag_targets import join_words
from xlmr_core.tasks.weighting import mean_loss

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
# Two float32 paths through the same weights.
TOLERANCE = 1e-5
CODECS = {"utf8": ("utf-8", 1), "utf16": ("utf-16-le", 2)}


@pytest.fixture(scope="module")
def directory(make_checkpoint):
    return make_checkpoint("XLMRobertaForTokenClassification", labels=BIO)


def prepared(directory, texts, **options):
    """The bound task, raw outputs of all windows and the windows."""
    plan = GraphPlan.resolve([Request("t", str(directory), {"aggregation": "first", **options})])
    encoded = Preprocessor(plan)(texts)
    outputs = ModelGraph(plan).forward(encoded)
    everyone = np.ones(len(texts), dtype=bool)
    records, rows = windowed_records(encoded, outputs.windows[0], plan.annotations[0], everyone)
    return plan.annotations[0].task, torch.from_numpy(outputs.raw["t"][rows]), records


@pytest.mark.parametrize("strategy", ["simple", "first"])
def test_offsets_count_what_was_asked_for(directory, sample_texts, strategy):
    texts = [text for text in sample_texts if text.strip()][::7]
    requests = [Request(unit, str(directory), {"offsets": unit, "aggregation": strategy}) for unit in CODECS]
    plan = GraphPlan.resolve([Request("codepoint", str(directory), {"aggregation": strategy}), *requests])
    # One tokenisation and one pass for each unit, none for a second annotation in the same one.
    assert [view.unit for view in plan.views] == ["codepoint", "utf8", "utf16"]
    columns = {name: to_list(column) for name, column in ModelGraph(plan)(Preprocessor(plan)(texts)).columns.items()}
    slices = 0
    for record, text in enumerate(texts):
        entities = columns["codepoint_entities"][record]
        for unit, (codec, size) in CODECS.items():
            for one, other in zip(entities, columns[f"{unit}_entities"][record], strict=True):
                span = slice(other["start"] * size, other["end"] * size)
                assert text.encode(codec)[span] == text[one["start"] : one["end"]].encode(codec)
                slices += 1
    assert slices > 100


def test_heads_that_ask_for_less_share_one_tokenisation(directory):
    options = [{"aggregation": "simple", "offsets": "utf8"}, {"aggregation": "max", "offsets": "utf8"}, {}]
    options[2] = {"task": "embedding", "pooling": "mean"}
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]):
        plan = GraphPlan.resolve([Request(f"t{i}", str(directory), options[i]) for i in order])
        assert [(view.offsets, view.words, view.unit) for view in plan.views] == [(True, "blanks", "utf8")]


def test_the_loss_on_words_equals_transformers(directory, sample_texts):
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), pad_token="<pad>", unk_token="<unk>"
    )
    split = [text.split()[:12] for text in sample_texts if text.strip()][::9]
    split = [words for words in split if len(tokenizer(words, is_split_into_words=True)["input_ids"]) <= 64]
    rng = np.random.default_rng(0)
    gold = [[BIO[number] for number in rng.integers(0, len(BIO), len(words))] for words in split]
    texts, spans = zip(*map(join_words, split), strict=True)
    task, raw, records = prepared(directory, list(texts))
    model = transformers.AutoModelForTokenClassification.from_pretrained(directory).eval()
    encoded = tokenizer(split, is_split_into_words=True, padding=True, return_tensors="pt")
    assert len(records.item) == len(split)
    for label_all in (False, True):
        labels = torch.full(encoded["input_ids"].shape, -100)
        for row, of_record in enumerate(gold):
            before = None
            for place, word in enumerate(encoded.word_ids(row)):
                if word is not None and word != before:
                    labels[row, place] = BIO.index(of_record[word])
                elif word is not None and label_all:
                    labels[row, place] = BIO.index(of_record[word].replace("B-", "I-"))
                before = word
        targets = torch.from_numpy(task.targets(gold, records, words=spans, label_all=label_all))
        assert targets.tolist() == labels[encoded["attention_mask"].bool()].tolist()
        with torch.no_grad():
            expected = model(encoded["input_ids"], encoded["attention_mask"], labels=labels).loss
        torch.testing.assert_close(mean_loss(*task.losses(raw, targets)), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], ["O", "B-PER", "I-PER", "I-PER", "O", "B-LOC", "O"]),
        (["O", "I-PER", "I-LOC"], ["O", "I-PER", "I-PER", "I-PER", "O", "I-LOC", "O"]),
        (["O", "PER", "LOC"], ["O", "PER", "PER", "PER", "O", "LOC", "O"]),
        (
            ["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "E-LOC", "S-LOC"],
            ["O", "B-PER", "I-PER", "E-PER", "O", "S-LOC", "O"],
        ),
        (
            ["O", "B_PER", "I_PER", "L_PER", "U_PER", "B_LOC", "I_LOC", "L_LOC", "U_LOC"],
            ["O", "B_PER", "I_PER", "L_PER", "O", "U_LOC", "O"],
        ),
    ],
    ids=["BIO", "IO", "bare", "BIOES", "BILOU"],
)
def test_entities_become_the_labels_of_their_scheme(make_checkpoint, labels, expected):
    directory = make_checkpoint("XLMRobertaForTokenClassification", labels=labels)
    text = "with Anna von Bergen in (Oslo today"
    task, _, records = prepared(directory, [text])
    targets = task.targets([[(25, 29, "LOC"), (5, 20, "PER")]], records)[1:-1]
    starts = records.offsets[:, 0].tolist()
    labelled = {start: labels[target] for start, target in zip(starts, targets.tolist(), strict=True) if target >= 0}
    # "(" is what stands before the entity in its word, so both are units.
    assert labelled == dict(zip([0, 5, 10, 14, 21, 24, 25, 30], [*expected[:5], "O", *expected[5:]], strict=True))
    everything = task.targets([[(25, 29, "LOC"), (5, 20, "PER")]], records, label_all=True)
    assert (everything[1:-1] >= 0).all()
    assert everything[[0, -1]].tolist() == [-100, -100]


def test_what_was_learnt_is_decoded_again(directory, sample_texts):
    """A tagger that says the targets finds the entities they were made of, in any script and in windows too."""
    texts = [text for text in sample_texts if text.strip() and not text.isspace()][::5]
    task, _, records = prepared(directory, texts, aggregation="first", max_length=20, stride=4)
    gold = []
    for record in range(len(texts)):
        tokens = slice(records.splits[record], records.splits[record + 1])
        spans = records.offsets[tokens][records.starts_word[tokens]].tolist()
        # Every third word, if no other token shares its characters.
        chosen = [span for before, span in pairwise(spans) if before[1] <= span[0]][::3]
        gold.append([(start, end, "PER") for start, end in chosen if end > start])
    assert sum(map(len, gold)) > 100
    targets = task.targets(gold, records, label_all=True)
    raw = np.full((len(targets), len(BIO)), -20, dtype=np.float32)
    raw[np.arange(len(targets)), np.maximum(targets, 0)] = 20
    (found,) = (to_list(column) for column in task.decode("t", raw, records, torch.nn.Identity()).values())
    for expected, got in zip(gold, found, strict=True):
        got = {(entity["start"], entity["label"]) for entity in got}
        assert {(start, name) for start, _, name in expected} <= got


def test_all_bad_entities_are_named_at_once(directory):
    task, _, records = prepared(directory, ["Anna in Oslo", "Bergen"])
    gold = [[(0, 4, "PER"), (2, 4, "LOC"), (8, 12, "CITY")], [(0, 6, "LOC"), (40, 44, "PER")]]
    with pytest.raises(TaskError) as error:
        task.targets(gold, records)
    for part in ("record 0: 2 to 4 ('LOC') overlaps", "8 to 12 ('CITY') is of an unknown type", "record 1: 40 to 44"):
        assert part in str(error.value)
    assert "types are PER, LOC" in str(error.value)


def test_all_bad_words_are_named_at_once(directory):
    task, _, records = prepared(directory, ["Anna in Oslo", "Bergen"])
    spans = [join_words(["Anna", "in", "Oslo"])[1], join_words(["Bergen"])[1]]
    with pytest.raises(TaskError) as error:
        task.targets([["B-PER", "X"], ["Y"]], records, words=spans)
    for part in ("record 0 has 2 labels and 3 words", "'X' (record 0)", "'Y' (record 1)", "known are O, B-PER"):
        assert part in str(error.value)


def test_records_without_entities_are_outside(directory):
    task, raw, records = prepared(directory, ["Anna in Oslo", "Bergen"])
    targets = task.targets([[], []], records)
    assert set(targets.tolist()) == {0, -100}
    assert torch.isfinite(mean_loss(*task.losses(raw, torch.from_numpy(targets))))
