"""A small multilingual corpus that ships with the package: what the demo annotates and the tests read."""

from pathlib import Path


def sample_path() -> Path:
    """The sample corpus: JSON Lines with the columns id, language, kind, url and text (see README.md)."""
    return Path(__file__).with_name("corpus.jsonl")
