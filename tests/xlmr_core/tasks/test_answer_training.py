"""Targets and loss of question answering against transformers' own script and model."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmr_core.batch import PackedBatch
from xlmr_core.errors import TaskError
from xlmr_core.graph import GraphPlan, Preprocessor, Request
from xlmr_core.graph.windows import plan_window_sets, windowed_records
from xlmr_core.tasks.answer import losses, targets
from xlmr_core.tasks.weighting import mean_loss

LETTERS = st.sampled_from("ab zé.,βςд עب漢 東か \n\u200b\u3000กํ้ㄱ🐙½ﬁ")
CONTEXTS = st.lists(LETTERS, min_size=1, max_size=300).map("".join).filter(lambda text: text.strip())


@pytest.fixture(scope="module")
def answerer(make_checkpoint):
    return make_checkpoint("XLMRobertaForQuestionAnswering", seed=5)


@pytest.fixture(scope="module")
def long_contexts(sample_texts):
    texts = [text for text in sample_texts if text.strip()]
    return [" ".join(texts[start : start + 3]) for start in range(0, 170, 17)]


@pytest.fixture(scope="module")
def windows_of(answerer):
    """The windows of contexts under one question."""
    options = {"task": "question-answering", "question": "Who was it?"}
    plan = GraphPlan.resolve([Request("q", str(answerer), options)])
    preprocess = Preprocessor(plan)

    def windows(*contexts):
        encoded = preprocess(contexts)
        (found,) = plan_window_sets(plan, encoded)
        return windowed_records(encoded, found, plan.annotations[0], encoded.views[0].lengths > 0)[0]

    return windows


def run_qa_targets(read, window, span):
    """`prepare_train_features` of transformers' examples/pytorch/question-answering/run_qa.py."""
    offsets, sides = read["offset_mapping"][window], read.sequence_ids(window)
    if span is None:
        return 0, 0
    first = sides.index(1)
    last = len(sides) - 1 - sides[::-1].index(1)
    if not (offsets[first][0] <= span[0] and offsets[last][1] >= span[1]):
        return 0, 0
    while first < len(offsets) and sides[first] == 1 and offsets[first][0] <= span[0]:
        first += 1
    while offsets[last][1] >= span[1] and sides[last] == 1:
        last -= 1
    return first - 1, last + 1


def test_targets_are_those_of_run_qa(answerer, windows_of, long_contexts):
    generator = np.random.default_rng(0)
    gold = []
    for context in long_contexts:
        start = int(generator.integers(0, len(context) - 1))
        gold.append((start, int(generator.integers(start + 1, min(start + 40, len(context)) + 1))))
    gold[3] = None
    records = windows_of(*long_contexts)
    read = transformers.AutoTokenizer.from_pretrained(answerer)(
        ["Who was it?"] * len(long_contexts),
        long_contexts,
        truncation="only_second",
        max_length=64,
        stride=32,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    places = targets(gold, records)
    assert len(places) == len(read["input_ids"]) > 2 * len(gold)
    assert 0 < (places == 0).all(axis=1).sum() < len(places)
    for window, place in enumerate(places.tolist()):
        start, end = run_qa_targets(read, window, gold[read["overflow_to_sample_mapping"][window]])
        # There, an answer can end before it starts.
        assert place == [start, max(start, end)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(context=CONTEXTS, data=st.data())
def test_targets_hold_the_whole_answer(windows_of, context, data):
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    records = windows_of(context)
    if not len(records):
        return
    for window, (first, last) in enumerate(targets([(start, end)], records).tolist()):
        if (first, last) == (0, 0):
            continue
        text_at, begin = records.text_at[window], records.start[window]
        assert text_at <= first <= last < text_at + records.end[window] - begin
        offsets = records.offsets[begin + first - text_at], records.offsets[begin + last - text_at]
        assert offsets[0][0] <= start
        assert end <= offsets[1][1]


def test_gold_answers_outside_of_their_texts_are_all_named(windows_of):
    records = windows_of("A short text.", "Another one.", "Fine.")
    with pytest.raises(TaskError, match=r"answer 0 from 3 to 99.*answer 1 from 5 to 5") as error:
        targets([(3, 99), (5, 5), (0, 4)], records)
    assert "answer 2" not in str(error.value)


def test_the_loss_is_that_of_transformers(random_model):
    model = random_model("XLMRobertaForQuestionAnswering")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 120, (6, 20), generator=generator)
    gold = torch.tensor([[1, 4], [0, 0], [19, 19], [3, 20], [99, 7], [20, 20]])
    found = model(input_ids=ids, start_positions=gold[:, 0], end_positions=gold[:, 1])
    raw = torch.stack([found.start_logits, found.end_logits], dim=2).reshape(-1, 2)
    batch = PackedBatch.from_lists(ids.tolist(), first_position=2)
    torch.testing.assert_close(mean_loss(*losses(raw, gold, batch)), found.loss, atol=1e-6, rtol=0)


def test_the_loss_of_unequal_windows_is_the_mean_of_each_alone(random_model, texts_of):
    model = random_model("XLMRobertaForQuestionAnswering")
    windows, gold = texts_of([5, 12, 30]), torch.tensor([[1, 3], [0, 0], [7, 29]])
    found = [
        model(input_ids=torch.tensor([ids]), start_positions=place[None, 0], end_positions=place[None, 1])
        for ids, place in zip(windows, gold, strict=True)
    ]
    raw = torch.cat([torch.stack([one.start_logits[0], one.end_logits[0]], dim=1) for one in found])
    batch = PackedBatch.from_lists(windows, first_position=2)
    expected = torch.stack([one.loss for one in found]).mean()
    torch.testing.assert_close(mean_loss(*losses(raw, gold, batch)), expected, atol=1e-6, rtol=0)


def test_the_loss_without_any_target_is_zero_and_trains_nothing():
    raw = torch.randn(7, 2, requires_grad=True)
    batch = PackedBatch.from_lists([[0, 5, 2], [0, 5, 6, 2]], first_position=2)
    nothing = mean_loss(*losses(raw, torch.full((2, 2), -100), batch))
    nothing.backward()
    assert nothing.item() == 0
    assert not raw.grad.any()
