"""Zero-shot classification: which of the user's own labels a text has, by a head trained on natural language inference.

Each label becomes a hypothesis ("This example is sport."); the head says whether the text entails it. Texts and
hypotheses are tokenised once each and put together as ids, which are those of tokenising every pair.

Agrees with transformers' `zero-shot-classification` pipeline (5.23) on texts of one window; a longer text has several,
and their logits are merged before they become scores. As there, one candidate label alone is scored against
contradiction, because a softmax over one label is 1. On purpose it differs in this:

- Which outputs mean entailment and contradiction is found by name. The pipeline takes the last output for entailment
  when no name begins with "entail", and the first for contradiction (the last when the first is entailment) whatever
  its name: with the outputs (neutral, entailment, contradiction) it compares entailment with neutral. Here a head
  whose names do not say is refused until the user does.
- A hypothesis that leaves no room for the text is refused; the pipeline then cuts nothing and the model fails.

To train such a head, train it as a classifier of pairs (`Classify.targets` and `Classify.loss` of `tasks.classify`):
premise, hypothesis, label.

Letters: W windows, I items (a text with one hypothesis), P annotated records, L candidate labels, C outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.tasks.columns import Column, Field, ListOf, VectorOf, label_columns
from xlmr_core.tasks.labels import settle_labels, threshold_problems
from xlmr_core.tasks.own_head import load_own_head, own_logits
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.scores import softmax
from xlmr_core.tasks.spans import WindowedRecords


@dataclass(frozen=True, slots=True)
class ZeroShotOptions:
    """Options of a zero-shot annotation.

    Attributes:
        candidate_labels: The labels to choose from, needed; blanks around them are dropped.
        template: The hypothesis, with the label in place of its one {}.
        multi_label: Whether every label is judged on its own, so that several may hold or none.
        threshold: With multi_label: a label is given from this score on, 0 to 1; default: 0.5.
        scores: Whether to write the scores of all labels as `NAME_scores`; with multi_label they are anyway.
        merge: How the logits of several windows become one: their mean or their maximum.
        entailment: The head's output for entailment, by name or number; default: the name that begins with "entail".
        contradiction: Its output for contradiction; default: the name that begins with "contra", or of two outputs the
            other one. Needed with multi_label and for a single candidate label only.
        labels: Names of the head's outputs, in its order; default: the checkpoint's own.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    candidate_labels: tuple[str, ...] = ()
    template: str = "This example is {}."
    multi_label: bool = False
    threshold: float | None = None
    scores: bool = False
    merge: Literal["mean", "max"] = "mean"
    entailment: str | None = None
    contradiction: str | None = None
    labels: tuple[str, ...] | None = None
    max_length: int | None = None
    stride: int = 0


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """The task, bound to one checkpoint's outputs.

    Attributes:
        labels: The labels to choose from, L of them.
        outputs: Names of the head's outputs, C of them.
        entailment: Which of them is entailment.
        contradiction: Which is contradiction; None where labels are compared with each other instead.
        threshold: With `multi_label`, a label is given from this score on.
        options: As the user gave them.
    """

    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    entailment: int
    contradiction: int | None
    threshold: float
    options: ZeroShotOptions

    head: ClassVar[HeadKind] = "sequence-classification"
    per_token: ClassVar[bool] = False
    load_head, forward = load_own_head, own_logits

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: ZeroShotOptions, *, pairs: bool = False) -> "ZeroShot":
        """Settles the candidate labels and what the head's outputs mean.

        Raises:
            TaskError: All that is wrong with the options, or an output of that meaning cannot be told.
        """
        candidates = tuple(label.strip() for label in options.candidate_labels)
        problems = [*_label_problems(candidates), *_option_problems(options)]
        if problems:
            raise TaskError(f"{checkpoint.spec}: " + "; ".join(problems))
        outputs = settle_labels(checkpoint, cls.head, options.labels)
        entailment = _output(outputs, "entailment", options.entailment, checkpoint.spec)
        contradiction = None
        if options.multi_label or len(candidates) == 1:
            contradiction = _output(outputs, "contradiction", options.contradiction, checkpoint.spec, other=entailment)
            if contradiction == entailment:
                rule = "they must be two outputs; correct entailment= or contradiction="
                raise TaskError(
                    f"{checkpoint.spec}: output {outputs[entailment]!r} for entailment and contradiction, {rule}"
                )
        threshold = 0.5 if options.threshold is None else options.threshold
        return cls(candidates, outputs, entailment, contradiction, threshold, options)

    @property
    def reading(self) -> Reading:
        """The text beside each hypothesis; only the text is cut."""
        hypotheses = tuple(self.options.template.replace("{}", label) for label in self.labels)
        return Reading("beside", fixed=hypotheses, rows="first")

    @property
    def raw_width(self) -> int:
        """Outputs of the head, C."""
        return len(self.outputs)

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`."""
        columns = [Field(f"{name}_label", "text"), Field(f"{name}_score", "float32")]
        if self.options.multi_label:
            columns.append(Field(f"{name}_labels", ListOf("text")))
        if self.options.multi_label or self.options.scores:
            columns.append(Field(f"{name}_scores", VectorOf("float32", len(self.labels))))
        return columns

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        settled = {"candidate_labels": list(self.labels), "multi_label": self.options.multi_label}
        settled |= {"entailment": self.entailment, "contradiction": self.contradiction, "threshold": self.threshold}
        return settled | {"scores": self.options.scores, "merge": self.options.merge}

    def decode(self, name: str, raw_WC: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of windows to columns of records."""
        logits_IC = records.merge_windows(raw_WC, self.options.merge)
        scores_PL = self.score(logits_IC.reshape(-1, len(self.labels), self.raw_width))
        values = label_columns(name, scores_PL, self.labels, self.threshold)
        return {field.name: values[field.name] for field in self.fields(name)}

    def score(self, logits_PLC: np.ndarray) -> np.ndarray:
        """Score of each candidate label (P, L): among all labels, or against contradiction."""
        if self.contradiction is None:
            return softmax(logits_PLC[..., self.entailment])
        scores_PL: np.ndarray = softmax(logits_PLC[..., [self.contradiction, self.entailment]])[..., 1]
        return scores_PL


def _label_problems(candidates: Sequence[str]) -> list[str]:
    if not candidates:
        return ["no candidate_labels, at least one is needed; pass candidate_labels=a|b|..."]
    problems = []
    if not all(candidates):
        problems.append("a candidate label is empty, each must be a text; correct candidate_labels=")
    twice = sorted({label for label in candidates if label and candidates.count(label) > 1})
    if twice:
        problems.append(f"candidate_labels {', '.join(twice)} twice, they must differ; correct candidate_labels=")
    return problems


def _option_problems(options: ZeroShotOptions) -> list[str]:
    problems: list[str] = []
    # transformers formats with str.format, so that other braces would mean something else there.
    rest = options.template.replace("{}", "", 1)
    if rest == options.template or "{" in rest or "}" in rest:
        problems.append(f"template={options.template!r}, it must hold {{}} once, for the label, and no other braces")
    return problems + threshold_problems(options.threshold, used=options.multi_label, where="multi_label=true")


def _output(
    labels: Sequence[str],
    meaning: Literal["entailment", "contradiction"],
    given: str | None,
    spec: str,
    *,
    other: int | None = None,
) -> int:
    """The output of that meaning: the one named or numbered by the user, else the one whose name begins like it.

    Args:
        labels: Names of the head's outputs.
        meaning: What is looked for; also the option that settles it.
        given: Value of that option.
        spec: The checkpoint, for messages.
        other: The output that it is not, so that of two outputs one is left.
    """
    known = ", ".join(f"{number} {label}" for number, label in enumerate(labels))
    if given is not None:
        named = [number for number, label in enumerate(labels) if label.lower() == given.lower()]
        if not named and given.isdecimal() and int(given) < len(labels):
            named = [int(given)]
        if len(named) != 1:
            raise TaskError(f"{spec}: {meaning}={given!r}, the head's outputs are {known}; pass one's name or number")
        return named[0]
    start = {"entailment": "entail", "contradiction": "contra"}[meaning]
    found = [number for number, label in enumerate(labels) if label.lower().startswith(start)]
    if not found and other is not None and len(labels) == 2:
        found = [1 - other]
    if len(found) != 1:
        said = f"{len(found)} of the head's outputs begin" if found else "none of the head's outputs begins"
        raise TaskError(
            f"{spec}: {said} with {start!r}, which is {meaning} must be known; pass {meaning}= by name or number "
            f"({known})"
        )
    return found[0]
