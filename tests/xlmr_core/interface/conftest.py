"""What the tests of the pipelines share."""

from collections.abc import Callable
from typing import Any

import pytest

# Two float32 paths through the same weights differ by rounding.
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any], None]:
    """Asserts that two answers agree: same types, same keys in the same order, same texts, numbers within rounding."""

    def compare(ours: Any, expected: Any) -> None:
        assert type(ours) is type(expected)
        if isinstance(expected, dict):
            assert list(ours) == list(expected)
            for key, value in expected.items():
                compare(ours[key], value)
        elif isinstance(expected, list):
            assert len(ours) == len(expected)
            for one, other in zip(ours, expected, strict=True):
                compare(one, other)
        elif isinstance(expected, float):
            assert ours == pytest.approx(expected, abs=TOLERANCE)
        else:
            assert ours == expected

    return compare
