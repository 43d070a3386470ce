"""What scores need so that they say how often they are right: a temperature, and thresholds where labels are several.

Every number is shown for records that it was not fitted on: they are dealt into five parts, and each part is scored
with what the four others say (cross-fitting). What does not help there is not kept.

Letters: N records, C labels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from xlmr_core.errors import TaskError
from xlmr_core.metrics import Calibration, Classification, MultiLabel, fit_temperature, fit_thresholds
from xlmr_core.metrics.calibration import COLDEST, HOTTEST, negative_log_likelihood
from xlmr_core.tasks.labels import DEFAULT_THRESHOLD
from xlmr_core.tasks.scores import activate

# One number is fitted to them; its relative error is then about a tenth.
LEAST_RECORDS = 100
# A language has a threshold of its own for labels that so many of its records have.
LEAST_OF_LANGUAGE = 20
# So many records is a common threshold worth to a label, and a label's threshold to a language.
_PRIOR_RECORDS = 20.0
_PARTS = 5


@dataclass(frozen=True, slots=True)
class LabelledLogits:
    """What a model says about labelled records, before softmax or sigmoid.

    Attributes:
        logits: (N, C), float32.
        gold: Number of the one label (N,), int64; or 1 for each label that holds, else 0 (N, C).
        languages: Of each record, "" where the data does not say (N,).
    """

    logits: np.ndarray
    gold: np.ndarray
    languages: np.ndarray

    @property
    def several(self) -> bool:
        """Whether a record may have several labels."""
        return self.gold.ndim == 2

    def __len__(self) -> int:
        return len(self.logits)

    def part(self, chosen_N: np.ndarray) -> "LabelledLogits":
        """The records that are chosen, by a mask or by number."""
        return LabelledLogits(self.logits[chosen_N], self.gold[chosen_N], self.languages[chosen_N])

    def scores(self, temperature: float) -> np.ndarray:
        """Scores as the model gives them at a temperature (N, C), float32."""
        return activate(self.logits / np.float32(temperature), "sigmoid" if self.several else "softmax")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is fitted.

    Attributes:
        temperature: Logits are divided by it.
        thresholds: Of several labels, the score from which on each is given (C,); 0.5 where None.
        by_language: Those of a language, by label number; a label that is not there has its threshold above.
    """

    temperature: float = 1.0
    thresholds: np.ndarray | None = None
    by_language: dict[str, dict[int, float]] = field(default_factory=dict)

    def of_records(self, records: LabelledLogits) -> np.ndarray:
        """The thresholds of each record (N, C), float32."""
        shared = DEFAULT_THRESHOLD if self.thresholds is None else self.thresholds
        of_record = np.full(records.logits.shape, shared, dtype=np.float32)
        for language, own in self.by_language.items():
            rows = np.flatnonzero(records.languages == language)
            for label, threshold in own.items():
                of_record[rows, label] = threshold
        return of_record


# Fits one thing more to records, on top of what is fitted already.
_Fit = Callable[[LabelledLogits, Parameters], Parameters]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that can be fitted, on top of those before it.

    Attributes:
        name: "as it is", "temperature", "thresholds" or "thresholds by language".
        measures: Of records that it was not fitted on.
        kept: Whether it made them better.
        by_language: The same measures of each language.
    """

    name: str
    measures: dict[str, float]
    kept: bool
    by_language: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What became of all steps.

    Attributes:
        parameters: Of those that are kept, from all records.
        steps: In their order; the first is the model as it is.
    """

    parameters: Parameters
    steps: tuple[Step, ...]


def fit(records: LabelledLogits, labels: tuple[str, ...], *, per_language: bool = False) -> Fitted:
    """Fits a temperature and, where labels are several, thresholds; keeps what helps on records not fitted on.

    A temperature helps when the likelihood of the gold labels rises, a threshold when macro F1 does.

    Args:
        records: That the model was not trained on.
        labels: C names, for the measures.
        per_language: Whether languages with enough records of a label have thresholds of their own.

    Raises:
        TaskError: Too few records.
    """
    if problems := count_problems(len(records)):
        raise TaskError("; ".join(problems))
    trials: list[tuple[str, str, _Fit]] = [("temperature", "negative_log_likelihood", _with_temperature)]
    if records.several:
        trials.append(("thresholds", "macro_f1", _with_thresholds))
        if per_language:
            trials.append(("thresholds by language", "macro_f1", _by_language))
    part_N = np.random.default_rng(0).permutation(len(records)) % _PARTS
    kept: list[_Fit] = []
    best, of_language = _measured(records, labels, part_N, kept)
    steps = [Step("as it is", best, True, of_language)]
    for name, goal, add in trials:
        measures, of_language = _measured(records, labels, part_N, [*kept, add])
        sign = -1 if goal == "negative_log_likelihood" else 1
        helps = sign * measures[goal] > sign * best[goal]
        steps.append(Step(name, measures, helps, of_language))
        if helps:
            kept.append(add)
            best = measures
    return Fitted(_fit_all(records, kept), tuple(steps))


def count_problems(records: int) -> list[str]:
    """What is wrong with a number of labelled records."""
    rule = f"a temperature needs at least {LEAST_RECORDS}; give more that the model was not trained on"
    return [f"got {records} labelled records that the model can read, {rule}"] if records < LEAST_RECORDS else []


def _fit_all(records: LabelledLogits, steps: list[_Fit]) -> Parameters:
    parameters = Parameters()
    for add in steps:
        parameters = add(records, parameters)
    return parameters


def _with_temperature(records: LabelledLogits, parameters: Parameters) -> Parameters:
    temperature = fit_temperature(records.logits, records.gold)
    # At an end of the range none is best: all is right, or all scores are equal.
    inside = COLDEST * 1.01 < temperature < HOTTEST / 1.01
    return replace(parameters, temperature=temperature if inside else 1.0)


def _with_thresholds(records: LabelledLogits, parameters: Parameters) -> Parameters:
    scores_NC = records.scores(parameters.temperature)
    # The best one for all labels together is what a label with few records starts from.
    (shared,) = fit_thresholds(scores_NC.reshape(-1, 1), records.gold.reshape(-1, 1))
    fitted_C = fit_thresholds(scores_NC, records.gold, prior=shared, strength=_PRIOR_RECORDS)
    return replace(parameters, thresholds=fitted_C)


def _by_language(records: LabelledLogits, parameters: Parameters) -> Parameters:
    shared = DEFAULT_THRESHOLD if parameters.thresholds is None else parameters.thresholds
    by_language: dict[str, dict[int, float]] = {}
    for language in np.unique(records.languages).tolist():
        own = records.part(records.languages == language)
        enough = np.flatnonzero(own.gold.sum(axis=0) >= LEAST_OF_LANGUAGE)
        if language and len(enough):
            scores_NC = own.scores(parameters.temperature)
            fitted_C = fit_thresholds(scores_NC, own.gold, prior=shared, strength=_PRIOR_RECORDS)
            by_language[language] = {label: float(fitted_C[label]) for label in enough.tolist()}
    return replace(parameters, by_language=by_language)


def _measured(
    records: LabelledLogits,
    labels: tuple[str, ...],
    part_N: np.ndarray,
    steps: list[_Fit],
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measures of all records and of each language, every part with what was fitted on the others."""
    logits = np.empty_like(records.logits, dtype=np.float64)
    thresholds = np.empty(records.logits.shape, dtype=np.float32)
    for part in range(_PARTS):
        held_out = part_N == part
        parameters = _fit_all(records.part(~held_out), steps)
        logits[held_out] = records.logits[held_out] / np.float32(parameters.temperature)
        thresholds[held_out] = parameters.of_records(records.part(held_out))
    cold = replace(records, logits=logits.astype(np.float32))
    names = np.unique(records.languages).tolist()
    rows = {name: np.flatnonzero(records.languages == name) for name in names if len(names) > 1}
    whole = measure(cold, thresholds, labels)
    return whole, {name: measure(cold.part(of), thresholds[of], labels) for name, of in rows.items()}


def measure(records: LabelledLogits, thresholds: np.ndarray, labels: tuple[str, ...]) -> dict[str, float]:
    """How good scores and decisions are.

    Args:
        records: With logits that are divided by their temperature already.
        thresholds: Of each record and label (N, C).
        labels: C names.

    Returns:
        `negative_log_likelihood`, `expected_calibration_error` (of the label that is given; of every label where
        several may be), and `accuracy` or `micro_f1` and `macro_f1`.
    """
    scores, calibration, names = records.scores(1.0), Calibration(), np.array(labels)
    if records.several:
        calibration.add(scores.reshape(-1), records.gold.reshape(-1))
        several, holds = MultiLabel(), records.gold.astype(bool)
        several.add([names[row] for row in holds], [names[row] for row in scores >= thresholds])
        result, wanted = several.result(), ("micro_f1", "macro_f1")
    else:
        best = scores.argmax(axis=1)
        calibration.add(scores[np.arange(len(best)), best], best == records.gold)
        single = Classification()
        single.add(names[records.gold].tolist(), names[best].tolist())
        result, wanted = single.result(), ("accuracy", "macro_f1")
    return {
        "negative_log_likelihood": negative_log_likelihood(records.logits, records.gold),
        "expected_calibration_error": calibration.result()["expected_calibration_error"],
        **{name: result[name] for name in wanted},
    }
