"""A validation during training says what an evaluation of the written model says, and changes nothing."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluate.asking import evaluation_plan
from pipelines.evaluate.scores import score
from pipelines.examples import Example, WordLabels
from pipelines.finetune.alarm import Alarm, Watched
from pipelines.finetune.by_language import whole_loss
from pipelines.finetune.chance import chance_of_labels
from pipelines.finetune.curves import Curves, read_lines
from pipelines.finetune.label_weights import count_labels
from pipelines.finetune.learner import Learner
from pipelines.finetune.steps import Stream, StreamSettings
from pipelines.finetune.supervised import Supervised
from pipelines.finetune.validation import (
    at_rest,
    chosen_examples,
    measures,
    merged,
    said_labels,
    validate,
    validation_line,
    validation_loss,
)
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.graph import GraphPlan, Request

# The first example of a process may be slow.
relaxed = settings(deadline=None, max_examples=50)

LABELS, TAGS = ["a", "b", "c"], ["O", "B-X", "I-X"]
KINDS = ["sequence-classification", "token-classification", "question-answering", "multiple-choice"]


def example(text, gold, number, second=()):
    return Example(text, second, gold, ("de", "fr", "")[number % 3], str(number), f"file:{number}")


@pytest.fixture(scope="module")
def lines(sample_texts):
    return [" ".join(text.split()[:12]) for text in sample_texts if len(text.split()) > 6][:60]


def tagged(text):
    words, spans, at = text.split(), [], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return WordLabels(tuple(TAGS[(len(words[0]) + n) % 3] for n in range(len(words))), tuple(spans))


def case(kind, make_checkpoint, lines):
    """A checkpoint, what its head is, and examples."""
    match kind:
        case "sequence-classification":
            directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS)
            return directory, {"labels": tuple(LABELS)}, [example(t, LABELS[n % 3], n) for n, t in enumerate(lines)]
        case "token-classification":
            directory = make_checkpoint("XLMRobertaForTokenClassification", labels=TAGS)
            return directory, {"labels": tuple(TAGS)}, [example(t, tagged(t), n) for n, t in enumerate(lines)]
        case "question-answering":
            directory = make_checkpoint("XLMRobertaForQuestionAnswering")
            answers = [((0, len(text.split()[0])),) if n % 4 else () for n, text in enumerate(lines)]
            return directory, {}, [example(text, answers[n], n, ("Was?",)) for n, text in enumerate(lines)]
        case "multiple-choice":
            directory = make_checkpoint("XLMRobertaForMultipleChoice")
            return directory, {}, [example(t, n % 2, n, (lines[n - 1][:20], "nein")) for n, t in enumerate(lines)]


def change(*modules):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in [parameter for module in modules for parameter in module.parameters()]:
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1


def opened(directory, kind):
    """Encoder and head in training mode, changed since they were loaded, and the plan of their validation."""
    checkpoint = Checkpoint.open(str(directory))
    encoder, head = checkpoint.load_encoder(), checkpoint.load_head(kind)
    change(encoder, head)
    return encoder.train(), head.train(), evaluation_plan(str(directory), kind, pairs=kind in KINDS[2:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_validation_is_the_evaluation_of_the_model_as_it_is_now(kind, make_checkpoint, lines, tmp_path):
    directory, what, examples = case(kind, make_checkpoint, lines)
    encoder, head, plan = opened(directory, kind)
    found = validate(encoder, head, plan, examples)
    write_model_directory(tmp_path / "now", encoder, tokenizer=directory, head=TrainedHead(head, **what, task=kind))
    assert found == score(str(tmp_path / "now"), kind, examples)
    assert found != score(str(directory), kind, examples)
    # The same modules with other weights: nothing was kept.
    change(encoder)
    assert validate(encoder, head, plan, examples) != found


def test_a_validation_changes_nothing(make_checkpoint, lines):
    directory, _, examples = case("token-classification", make_checkpoint, lines)
    encoder, head, plan = opened(directory, "token-classification")
    encoder.embeddings.eval()  # Frozen, say.
    modules = torch.nn.ModuleList([encoder, head])
    modes = [part.training for part in modules.modules()]
    weights = {name: (value.data_ptr(), value.clone()) for name, value in modules.state_dict().items()}
    chance = torch.get_rng_state()
    validate(encoder, head, plan, examples[:20])
    assert torch.equal(torch.get_rng_state(), chance)
    assert [part.training for part in modules.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in modules.parameters())
    for name, value in modules.state_dict().items():
        # Neither copied nor reordered.
        assert value.data_ptr() == weights[name][0]
        assert torch.equal(value, weights[name][1])


def test_modes_come_back_after_an_error_too():
    part = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())

    def fail():
        assert not part[0].training
        raise KeyError

    with pytest.raises(KeyError), at_rest(part):
        fail()
    assert (part.training, part[0].training, part[1].training) == (True, True, False)


def test_shares_of_several_workers_are_what_one_counts(make_checkpoint, lines):
    directory, _, examples = case("sequence-classification", make_checkpoint, lines)
    encoder, head, plan = opened(directory, "sequence-classification")
    whole = validate(encoder, head, plan, examples)
    parts = [validate(encoder, head, plan, examples[rank::3]) for rank in range(3)]
    assert merged([*parts, validate(encoder, head, plan, [])]) == whole
    assert merged([]).measures() == {}


def test_a_line_names_the_deciding_measure_of_each_language(make_checkpoint, lines, tmp_path):
    directory, _, examples = case("sequence-classification", make_checkpoint, lines)
    found = validate(*opened(directory, "sequence-classification"), examples)
    line = validation_line(found, "macro_f1")
    by_language = {name or "(none)": values["macro_f1"] for name, values in found.measures().items()}
    assert line["languages"] == by_language
    assert line["mean"] == measures(found)
    assert line["mean"]["macro_f1"] == pytest.approx(sum(by_language.values()) / 3)
    assert line["all"] == found.together()
    Curves(tmp_path / "metrics.jsonl").write({"event": "validation", "step": 3} | line)
    assert json.loads(json.dumps(line)) == {key: next(read_lines(tmp_path / "metrics.jsonl"))[key] for key in line}


def test_labels_are_counted_where_answers_have_some(make_checkpoint, lines):
    directory, _, examples = case("sequence-classification", make_checkpoint, lines)
    gold, predicted = said_labels(validate(*opened(directory, "sequence-classification"), examples))
    assert gold == {"a": 20, "b": 20, "c": 20}
    assert sum(predicted.values()) == 60
    directory, _, examples = case("token-classification", make_checkpoint, lines)
    gold, _ = said_labels(validate(*opened(directory, "token-classification"), examples))
    assert set(gold) == {"X"}
    directory, _, examples = case("multiple-choice", make_checkpoint, lines)
    assert said_labels(validate(*opened(directory, "multiple-choice"), examples[:4])) is None


@relaxed
@given(st.lists(st.sampled_from(["de", "fr", ""]), max_size=60), st.integers(0, 8), st.integers(0, 3))
def test_so_many_examples_of_each_language_are_chosen(languages, most, seed):
    examples = [SimpleNamespace(language=language, number=n) for n, language in enumerate(languages)]
    chosen = chosen_examples(iter(examples), most, seed=seed)
    assert chosen == chosen_examples(examples, most, seed=seed)
    assert [e.number for e in chosen] == sorted({e.number for e in chosen})
    for language in set(languages):
        assert sum(e.language == language for e in chosen) == min(languages.count(language), most)
    assert chosen_examples(examples, None, seed=seed) == examples


def trained(directory, examples, rate, steps=60):
    """Trains with AdamW, as simply as can be; the warnings, and the scores at the end."""
    plan = GraphPlan.resolve([Request("task", str(directory), {})])
    objective = Supervised(plan)
    data, _ = objective.training_set(examples)
    checkpoint = Checkpoint.open(str(directory))
    encoder, head = checkpoint.load_encoder().train(), checkpoint.load_head("sequence-classification").train()
    stream = Stream(data, StreamSettings(12), first_position=2)
    watched = Watched(steps, 5, rate, chance_of_labels(count_labels(data.targets, 3)))
    alarm, warnings, learner = Alarm(), [], torch.nn.ModuleList([encoder, head])
    optimiser = torch.optim.AdamW(learner.parameters(), lr=rate, fused=True)
    torch.manual_seed(0)
    for step in range(steps):
        loss = sum(
            objective.losses(encoder, head, stream.build(part, weight, 0)).mean * weight
            for part, weight in stream.parts(step)
        )
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 5)
        optimiser.step()
        alarm, warning = alarm.after_loss(step + 1, float(loss.detach()), watched)
        warnings += [warning] * bool(warning)
    found = validate(encoder, head, evaluation_plan(str(directory), "sequence-classification", pairs=False), examples)
    warning = alarm.after_validation(steps, *said_labels(found), watched)[1]
    return warnings + [warning] * bool(warning), found


def test_a_model_that_learns_sets_off_no_alarm_and_one_with_an_absurd_rate_does(make_checkpoint, lines, monkeypatch):
    monkeypatch.setattr("pipelines.finetune.alarm._FIRST_STEPS", 45)
    directory = make_checkpoint("XLMRobertaForSequenceClassification", labels=LABELS, initializer_range=0.1)
    texts = [" ".join([("the", "from", "old")[n % 3], *text.split()[:5]]) for n, text in enumerate(lines)]
    examples = [example(text, LABELS[n % 3], n) for n, text in enumerate(texts)]
    warnings, found = trained(directory, examples, 5e-3)
    assert not warnings
    assert found.together()["accuracy"] > 0.6
    warnings, found = trained(directory, examples, 0.5)
    assert warnings[-1].startswith("every validation record is")


def test_a_validation_loss_is_the_mean_over_all_targets_of_all_batches(make_checkpoint, lines):
    directory, _, examples = case("sequence-classification", make_checkpoint, lines)
    encoder, head, _ = opened(directory, "sequence-classification")
    objective = Supervised(GraphPlan.resolve([Request("task", str(directory), {})]))
    data, _ = objective.training_set(examples)
    stream = Stream(data, StreamSettings(7, shuffle=False, max_tokens=60), first_position=2)
    learner = Learner(encoder, {"task": head}, {"task": objective})
    found = validation_loss(learner, stream)
    halves = [validation_loss(learner, stream, rank=rank, workers=2).sums for rank in range(2)]
    torch.testing.assert_close(halves[0] + halves[1], found.sums)
    assert found.languages == data.languages
    assert found.sums[:, 1].sum() == len(data.lengths)
    with at_rest(encoder, head):
        whole = objective.losses(encoder, head, stream.build(data, 1.0, 0)).mean
    assert whole_loss(found.sums) == pytest.approx(float(whole.detach()), rel=1e-5)
    assert encoder.training
