"""Tells when a run has collapsed or never started to learn; it warns, and leaves it to people to end the run.

Fine-tuning large encoders sometimes fails this way: the model says the same whatever it reads, and its loss stays at
what the frequencies of the labels alone give (Mosbach et al. 2021 trace it to vanishing gradients early on, and
advise a small learning rate with warm-up, and more steps). Small data sets need an epoch before anything is learnt, so
nothing is said in the first three tenths of a run, nor in its first hundred steps, nor until a tenth after the warm-up;
each thing is said once, and again only after it was well in between.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

# Shares of a run's steps: nothing is said before; nor so soon after the warm-up; what counts as its beginning.
_QUIET, _SETTLE, _BEGINNING = 0.3, 0.1, 0.02
# Steps that learning may take to begin; of a shorter run only the end is judged.
_FIRST_STEPS = 100
# Memory of the mean loss, and of an older one that tells whether it still falls, in shares of a run's steps.
_MEMORY, _LONG_MEMORY = 0.05, 0.1
# At chance: not below it by this share. Still falling: below the older mean by as much. Well again: by twice as much.
_MARGIN = 0.02
# A loss that does not fall is no sign where it is already this far below chance.
_LEARNT = 0.5
# Fewer validation records, or hardly any but of one label, say nothing.
_FEWEST, _ALMOST_ALL = 20, 0.95


@dataclass(frozen=True, slots=True)
class Watched:
    """What a run is.

    Attributes:
        steps: Optimiser steps of it.
        warmup_steps: Of these, with a rising rate.
        learning_rate: The highest.
        chance: Loss of a model that has learnt nothing, see `chance`; None where it is not known.
    """

    steps: int
    warmup_steps: int
    learning_rate: float
    chance: float | None = None

    @property
    def quiet(self) -> float:
        """Nothing is said before this step."""
        first = max(_QUIET * self.steps, self.warmup_steps + _SETTLE * self.steps, _FIRST_STEPS)
        # At the end at the latest, unless a run is so short that it could not learn anything.
        return first if self.steps < _FIRST_STEPS else min(first, self.steps)

    @property
    def advice(self) -> str:
        """What to do."""
        rate, warmup = f"{self.learning_rate:g}", f"{self.warmup_steps:,} steps"
        return f"try a smaller training.learning_rate (now {rate}) or more training.warmup (now {warmup})"


@dataclass(frozen=True, slots=True)
class Alarm:
    """What was seen so far; plain numbers, so that a checkpoint can hold it. `Alarm(**state)` goes on from there.

    Attributes:
        beginning: Mean loss of the first steps.
        begun: Lines of metrics in it.
        mean: Loss, newer steps count more.
        older: The same with a longer memory.
        step: Of the last line; 0 before there is one.
        collapsed: Whether that was said.
        one_label: Whether that was said.
    """

    beginning: float = math.nan
    begun: int = 0
    mean: float = math.nan
    older: float = math.nan
    step: int = 0
    collapsed: bool = False
    one_label: bool = False

    def state(self) -> dict[str, float | int | bool]:
        """For a checkpoint."""
        return asdict(self)

    def after_loss(self, step: int, loss: float, watched: Watched) -> tuple["Alarm", str | None]:
        """What was seen with one more line of metrics, and a warning if there is something new to warn of.

        Args:
            step: Optimiser steps so far.
            loss: Mean over the last of them.
            watched: What the run is.
        """
        beginning, begun = self.beginning, self.begun
        if not begun or step <= _BEGINNING * watched.steps:
            beginning, begun = ((beginning * begun if begun else 0.0) + loss) / (begun + 1), begun + 1
        mean, older = self.mean, self.older
        if self.step:
            # The share of the new line depends on how many steps it stands for, not on how often lines are written.
            passed = (step - self.step) / watched.steps
            mean += -math.expm1(-passed / _MEMORY) * (loss - mean)
            older += -math.expm1(-passed / _LONG_MEMORY) * (loss - older)
        else:
            mean = older = loss
        seen = replace(self, beginning=beginning, begun=begun, mean=mean, older=older, step=step)
        problem = None if step < watched.quiet else seen._problem(watched)
        if self.collapsed:
            return replace(seen, collapsed=not seen._well(watched)), None
        warning = problem and f"{problem} after {step:,} of {watched.steps:,} steps; {watched.advice}"
        return replace(seen, collapsed=problem is not None), warning

    def after_validation(
        self, step: int, gold: Mapping[str, int], predicted: Mapping[str, int], watched: Watched
    ) -> tuple["Alarm", str | None]:
        """The same with one more validation.

        Args:
            step: Optimiser steps so far.
            gold: How often each label, or each type of entity, is right.
            predicted: How often each was predicted.
            watched: What the run is.
        """
        said, total = [name for name, count in predicted.items() if count], sum(gold.values())
        telling = total >= _FEWEST and max(gold.values()) < _ALMOST_ALL * total
        if len(said) > 1 or not telling or step < watched.quiet:
            return replace(self, one_label=self.one_label and len(said) <= 1), None
        if self.one_label:
            return self, None
        what = f"every validation record is {said[0]!r}" if said else "nothing is found in any validation record"
        labels = sum(count > 0 for count in gold.values())
        warning = f"{what} after {step:,} of {watched.steps:,} steps, {labels} labels occur; {watched.advice}"
        return replace(self, one_label=True), warning

    def _problem(self, watched: Watched) -> str | None:
        chance = watched.chance
        # What falls from far above chance has not begun to learn.
        if self.mean < (1 - _MARGIN) * self.older and not (chance and self.mean > 2 * chance):
            return None
        if chance and self.mean >= (1 - _MARGIN) * chance:
            return f"the loss is {self.mean:.4f}, no better than chance ({chance:.4f}),"
        if self.mean >= self.beginning and not (chance and self.mean < _LEARNT * chance):
            return f"the loss is {self.mean:.4f}, it began at {self.beginning:.4f} and has not fallen,"
        return None

    def _well(self, watched: Watched) -> bool:
        """Whether the loss has left chance and its beginning behind for good."""
        limits = [self.beginning, *([watched.chance] if watched.chance else [])]
        return self.mean < (1 - 2 * _MARGIN) * min(limits)
