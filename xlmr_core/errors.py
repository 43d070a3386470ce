"""Every error this package raises on purpose.

XLMRError
├── CheckpointError   a model directory that cannot be used as it is
├── TaskError         an annotation asks for something its checkpoint or its options do not give
├── ArgumentError     a documented class is called with arguments that do not fit; also a ValueError
└── InputError        a record that cannot be processed; carries a short reason `code`

Messages follow one pattern: what, what was got, the rule; what to do about it.
"""

from functools import partial


class XLMRError(Exception):
    """Root of the tree; catching it catches everything a user of this package can cause."""


class CheckpointError(XLMRError):
    """A model directory that is missing, incomplete, contradictory or unsafe to load."""


class TaskError(XLMRError):
    """An annotation whose options do not fit each other or the checkpoint they name."""


class ArgumentError(XLMRError, ValueError):
    """A call of a documented class with arguments that do not fit each other or the model."""


class InputError(XLMRError):
    """A record that cannot be processed.

    Attributes:
        code: Short snake_case reason, stable across releases; it is the quarantine's `code` column.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes: an exception alone does not know of `code`."""
        return partial(InputError, code=self.code), self.args
