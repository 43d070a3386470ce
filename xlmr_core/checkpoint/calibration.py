"""How the scores of a head are to be read: what was fitted on labelled records and is kept in `xlmr.json`.

"calibration": {
    "activation": "sigmoid", "temperature": 1.7, "records": 1204,
    "thresholds": {"sport": 0.41, "politics": 0.35}, "language_thresholds": {"de": {"sport": 0.38}}
}
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkstemp
from typing import Any, Literal

from xlmr_core.checkpoint import layout
from xlmr_core.errors import CheckpointError
from xlmr_core.metrics.calibration import COLDEST, HOTTEST

CALIBRATION = "calibration"
_MAX_LANGUAGES = 10_000
_MAX_SHOWN = 10


@dataclass(frozen=True, slots=True)
class HeadCalibration:
    """What was fitted for a sequence classification head.

    Attributes:
        activation: What makes the scores for which it was fitted; others are none of its business.
        temperature: Logits are divided by it first (Guo et al. 2017).
        thresholds: Of several labels, the score from which on each is given; 0.5 for one that is not named.
        language_thresholds: The same for records of a language; a label that is not named has its threshold above.
        records: How many it was fitted on.
    """

    activation: Literal["softmax", "sigmoid"]
    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    language_thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    records: int | None = None

    @classmethod
    def from_settings(cls, stored: object, labels: Sequence[str], *, source: str) -> "HeadCalibration":
        """Reads what an `xlmr.json` says.

        Args:
            stored: Value of its key `calibration`.
            labels: The head's own label names.
            source: The file, for messages.

        Raises:
            CheckpointError: All that is wrong with it.
        """
        given: dict[str, Any] = stored if isinstance(stored, dict) else {}
        problems = [] if given else [f"it is {_short(stored)}, it must be an object"]
        known = cls.__dataclass_fields__
        problems += [f"{_short(name)} is unknown, known are {', '.join(known)}" for name in given if name not in known]
        activation: Any = given.get("activation")
        temperature = given.get("temperature", 1.0)
        if given and activation not in ("softmax", "sigmoid"):
            problems.append(f"activation is {_short(activation)}, it must be softmax or sigmoid")
        if not _is_between(temperature, COLDEST, HOTTEST):
            problems.append(f"temperature is {_short(temperature)}, it must be a number from {COLDEST} to {HOTTEST:g}")
        records = given.get("records")
        if records is not None and (type(records) is not int or records < 1):
            problems.append(f"records is {_short(records)}, it must be a whole number from 1 on")
        thresholds, by_language = given.get("thresholds", {}), given.get("language_thresholds", {})
        problems += _threshold_problems("thresholds", thresholds, labels)
        if not isinstance(by_language, dict) or len(by_language) > _MAX_LANGUAGES:
            problems.append(f"language_thresholds must be an object of at most {_MAX_LANGUAGES:,} languages")
            by_language = {}
        for language, own in by_language.items():
            problems += _threshold_problems(f"language_thresholds of {_short(language)}", own, labels)
        if activation == "softmax" and (thresholds or by_language):
            problems.append("thresholds are for scores by sigmoid, these are by softmax")
        if problems:
            more = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
            said = "; ".join(problems[:_MAX_SHOWN]) + more
            rule = f"correct it, or delete {CALIBRATION!r} there and run xlmr calibrate again"
            raise CheckpointError(f"{CALIBRATION} in {source}: {said}; {rule}")
        return cls(activation, float(temperature), thresholds, by_language, records)

    def to_settings(self) -> dict[str, Any]:
        """The value for `xlmr.json`; what says nothing is left out."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value not in (None, {})}


def save_calibration(directory: Path, calibration: HeadCalibration | None) -> Path:
    """Puts a calibration into the `xlmr.json` of a model directory or of one of its heads, or takes it out.

    The file is replaced in one step and is never half written; all else in it stays as it is.

    Args:
        directory: The model directory, or that of the head.
        calibration: None for none.

    Returns:
        The file.

    Raises:
        CheckpointError: The file that is there is no JSON object.
        OSError: It cannot be written.
    """
    path = directory / layout.SETTINGS
    settings = layout.read_json_if_any(path)
    settings.pop(CALIBRATION, None)
    if calibration is not None:
        settings[CALIBRATION] = calibration.to_settings()
    text = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
    mode = path.stat().st_mode & 0o777 if path.is_file() else 0o644
    # Beside the target, so that the rename stays on one file system.
    handle, draft = mkstemp(prefix=f".{layout.SETTINGS}.", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path


def _threshold_problems(what: str, stored: object, labels: Sequence[str]) -> list[str]:
    if not isinstance(stored, dict):
        return [f"{what} is {_short(stored)}, it must be an object of labels and scores"]
    known = set(labels)
    problems = [f"{what} name {_short(label)}, the head has no such label" for label in stored if label not in known]
    wrong = {label: score for label, score in stored.items() if not _is_between(score, 0, 1)}
    return problems + [
        f"{what}: {_short(name)} has {_short(score)}, it must be 0 to 1" for name, score in wrong.items()
    ]


def _is_between(value: object, low: float, high: float) -> bool:
    """Whether it is a number in that range; True is none, and nan is in no range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
