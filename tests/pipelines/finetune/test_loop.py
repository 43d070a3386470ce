from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipelines.finetune.batches import Batches
from pipelines.finetune.loop import CHECKPOINT, LoopSettings, learning_rate_at, train
from pipelines.finetune.losses import LanguageAndEmbedding, joint_loss
from pipelines.finetune.warm_start import BagOfTokens

SETTINGS = LoopSettings(
    12, learning_rate=3e-3, warmup_steps=3, dtype=torch.float32, checkpoint_seconds=0.0, log_steps=1
)


class Killed(Exception):
    pass


def killed_at(step: int, batches: Batches) -> Callable[[int], object]:
    def source(number: int) -> object:
        if number == step:
            raise Killed
        return batches(number)

    return source


def make(config) -> LanguageAndEmbedding:
    torch.manual_seed(0)
    return LanguageAndEmbedding(config, 3)


def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(tmp_path, batches, config):
    whole = train(make(config), batches, joint_loss, SETTINGS, tmp_path / "whole")
    with pytest.raises(Killed):
        train(make(config), killed_at(7, batches), joint_loss, SETTINGS, tmp_path / "cut")
    torch.manual_seed(99)
    resumed = train(LanguageAndEmbedding(config, 3), batches, joint_loss, SETTINGS, tmp_path / "cut")
    assert [entry["step"] for entry in resumed] == [8, 9, 10, 11, 12]
    assert [entry["loss"] for entry in resumed] == [entry["loss"] for entry in whole[7:]]


def test_a_finished_run_does_nothing_more(tmp_path, batches, config):
    model = make(config)
    train(model, batches, joint_loss, SETTINGS, tmp_path)
    before = model.encoder.embeddings.word_embeddings.weight.clone()
    assert train(model, batches, joint_loss, SETTINGS, tmp_path) == []
    assert torch.equal(model.encoder.embeddings.word_embeddings.weight, before)


def test_the_loss_falls(tmp_path, batches, config):
    settings = LoopSettings(80, learning_rate=3e-2, warmup_steps=5, dtype=torch.float32, log_steps=10)
    torch.manual_seed(0)
    history = train(BagOfTokens(config, 3), batches, joint_loss, settings, tmp_path)
    assert history[-1]["language_loss"] < 0.5 * history[0]["language_loss"]
    assert history[-1]["contrastive_loss"] < history[0]["contrastive_loss"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, batches, config):
    def loss(model: LanguageAndEmbedding, batch: object) -> tuple[Tensor, dict[str, float]]:
        return torch.tensor(float("nan")), {}

    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(make(config), batches, loss, SETTINGS, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def test_the_rate_warms_up_stays_and_falls():
    settings = LoopSettings(100, learning_rate=1.0, warmup_steps=10, decay_share=0.5)
    rates = [learning_rate_at(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.02)
    assert rates[50:] == sorted(rates[50:], reverse=True)
