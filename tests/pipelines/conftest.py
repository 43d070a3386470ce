"""What the tests of jobs share: tiny checkpoints as tasks."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tasks(make_checkpoint: Callable[..., Path]) -> list[str]:
    """Labels, entities and vectors, each from a random checkpoint of its own."""
    classify = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"], seed=1)
    tag = make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X", "I-X", "B-Y"], seed=2)
    embed = make_checkpoint("XLMRobertaModel", seed=3)
    return [f"topic={classify}", f"names={tag}", f"vector={embed},task=embedding,pooling=mean"]
