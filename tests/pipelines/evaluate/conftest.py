"""What the tests of evaluations share: short lines of text, and labelled files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Write = Callable[[str, Sequence[object]], str]


@pytest.fixture(scope="session")
def lines(sample_texts: list[str]) -> list[str]:
    """Sixty texts of up to ten words."""
    return [" ".join(text.split()[:10]) for text in sample_texts if len(text.split()) > 8][:60]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as JSON lines and gives the path."""

    def write_rows(name: str, rows: Sequence[object]) -> str:
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        return str(path)

    return write_rows
