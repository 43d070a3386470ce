"""What watches a run: gathers what its steps and validations say, writes it down, warns, and knows the best state.

Every worker has one and is told the same, so all decide the same; only one writes. All that it knows is in `state`,
which belongs into each checkpoint: a run that goes on writes, warns and stops as one that was not interrupted.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.evaluate.scores import Scores
from pipelines.finetune.alarm import Alarm, Watched
from pipelines.finetune.best import Aim, Best, deciding, decisive_value
from pipelines.finetune.by_language import MOST_NAMED, WIDTH, languages_of, whole_loss
from pipelines.finetune.curves import EPOCH, VALIDATION, WARNING, Curves
from pipelines.finetune.validation import LanguageLoss, said_labels, validation_line


@dataclass(frozen=True, slots=True)
class WatchedGoal:
    """One thing that is learnt.

    Attributes:
        languages: Names of its training set's languages.
        run: What the alarm needs to know.
        metric: What its validations are judged by.
    """

    languages: tuple[str, ...]
    run: Watched
    metric: str


class Watch:
    """Watches one run.

    Args:
        goals: By name.
        aim: What is better, and how long to wait for it.
        curves: Where lines go; None for a worker that does not write.
        state: Of the checkpoint that the run goes on from.
    """

    def __init__(
        self,
        goals: Mapping[str, WatchedGoal],
        aim: Aim,
        curves: Curves | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._goals, self._aim, self._curves = dict(goals), aim, curves
        state = state or {}
        self.best = Best(**state.get("best", {}))
        self._alarms = {name: Alarm(**state.get("alarms", {}).get(name, {})) for name in goals}
        self._epoch, self._window = self._sums(state.get("epoch", {})), self._sums(state.get("window", {}))
        self._numbers: dict[str, float] = dict(state.get("numbers", {}))
        self._steps: int = state.get("steps", 0)
        # How fast it goes is a matter of this process.
        self._since, self._tokens = time.monotonic(), 0.0

    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain values and tensors."""
        return {
            "best": self.best.state(),
            "alarms": {name: alarm.state() for name, alarm in self._alarms.items()},
            "epoch": {name: sums.clone() for name, sums in self._epoch.items()},
            "window": {name: sums.clone() for name, sums in self._window.items()},
            "numbers": dict(self._numbers),
            "steps": self._steps,
        }

    def after_step(self, numbers: Mapping[str, float], sums: Mapping[str, Tensor]) -> None:
        """Takes what an optimiser step says.

        Args:
            numbers: Whose means over the steps are written, such as the loss and the gradients' norm.
            sums: Loss, targets and tokens by goal and language, see `language_sums`, added up over all workers.
        """
        for name, value in numbers.items():
            self._numbers[name] = self._numbers.get(name, 0.0) + value
        for goal, of_goal in sums.items():
            self._window[goal] += of_goal
            self._epoch[goal] += of_goal
            self._tokens += float(of_goal[:, -1].sum())
        self._steps += 1

    def pause(self, seconds: float) -> None:
        """Leaves time out of the speed that the next line says: what was no training."""
        self._since += seconds

    def write_line(self, step: int, **facts: float) -> dict[str, Any]:
        """Writes the means since the last line, and warnings if there are some.

        Args:
            step: Optimiser steps so far.
            facts: What else the line says, such as the learning rate.

        Returns:
            The line.
        """
        seconds = time.monotonic() - self._since
        means = {name: total / self._steps for name, total in self._numbers.items()}
        tokens = sum(float(sums[:, -1].sum()) for sums in self._window.values()) / self._steps
        speed = {"tokens": tokens, "seconds": seconds, "tokens_per_second": self._tokens / max(seconds, 1e-9)}
        line = {"step": step, "steps": next(iter(self._goals.values())).run.steps}
        # The loss of all goals is a mean over steps, each of which counts the same however many targets it had.
        line |= self._of_goals(self._window) | facts | means | speed
        self._write(line)
        for goal, sums in self._window.items():
            loss = whole_loss(sums)
            if math.isfinite(loss):
                self._alarms[goal], warning = self._alarms[goal].after_loss(step, loss, self._goals[goal].run)
                self._warn(step, goal, warning)
        for sums in self._window.values():
            sums.zero_()
        self._numbers, self._steps = {}, 0
        self._since, self._tokens = time.monotonic(), 0.0
        return line

    def end_epoch(self, step: int, epoch: int) -> None:
        """Writes the loss of an epoch, of every single language, and begins the next.

        Args:
            step: Optimiser steps so far.
            epoch: Which one has ended, counted from 1.
        """
        self._write({"event": EPOCH, "step": step, "epoch": epoch} | self._of_goals(self._epoch, most=None))
        for sums in self._epoch.values():
            sums.zero_()

    def after_validation(self, step: int, found: Mapping[str, Scores | LanguageLoss]) -> Best:
        """Takes what a validation says of each goal.

        Args:
            step: Optimiser steps so far.
            found: Its scores; or, of a goal that is judged by its loss, that.

        Returns:
            Whether this state is the best so far, and whether to stop.
        """
        lines = {goal: self._validation_line(goal, of_goal) for goal, of_goal in found.items()}
        metrics = deciding({goal: self._goals[goal].metric for goal in found})
        value = decisive_value({goal: line["mean"] for goal, line in lines.items()}, metrics)
        self.best = self.best.after(step, value, self._aim)
        for goal, line in lines.items():
            said = {"best": self.best.improved, "stop": self.best.stop}
            self._write({"event": VALIDATION, "step": step, **self._name(goal), **line, **said})
            of_goal = found[goal]
            labels = None if isinstance(of_goal, LanguageLoss) else said_labels(of_goal)
            if labels is not None:
                alarm = self._alarms[goal].after_validation(step, *labels, self._goals[goal].run)
                self._alarms[goal], warning = alarm
                self._warn(step, goal, warning)
        return self.best

    def _validation_line(self, goal: str, found: Scores | LanguageLoss) -> dict[str, Any]:
        if not isinstance(found, LanguageLoss):
            return validation_line(found, self._goals[goal].metric)
        by_language = languages_of(found.sums, found.languages, most=None)
        losses = {name: values["loss"] for name, values in by_language.items()}
        known = [loss for loss in losses.values() if math.isfinite(loss)]
        mean = sum(known) / len(known) if known else math.nan
        return {"metric": "loss", "mean": {"loss": mean}, "all": {"loss": whole_loss(found.sums)}, "languages": losses}

    def _sums(self, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By goal and language, nothing yet where nothing is known."""
        sizes = {name: len(goal.languages) for name, goal in self._goals.items()}
        zeros = {name: torch.zeros(size, WIDTH, dtype=torch.float64) for name, size in sizes.items()}
        return {name: known[name].clone() if name in known else zero for name, zero in zeros.items()}

    def _of_goals(self, sums: Mapping[str, Tensor], *, most: int | None = MOST_NAMED) -> dict[str, Any]:
        """Loss and languages, of each goal where there are several."""
        found = {
            goal: {"loss": whole_loss(of_goal), "languages": languages_of(of_goal, self._goals[goal].languages, most)}
            for goal, of_goal in sums.items()
        }
        return next(iter(found.values())) if len(found) == 1 else {"goals": found}

    def _name(self, goal: str) -> dict[str, str]:
        return {"goal": goal} if len(self._goals) > 1 else {}

    def _warn(self, step: int, goal: str, warning: str | None) -> None:
        if warning is not None:
            of_goal = f"{goal}: " if len(self._goals) > 1 else ""
            self._write({"event": WARNING, "step": step, "message": f"{of_goal}{warning}"})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._curves is not None:
            self._curves.write(line)
