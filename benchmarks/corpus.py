"""Texts of chosen lengths, cut from the sample corpus: always the same ones, in many scripts."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.sample import sample_path
from xlmr_core.tokenization import Tokenizer

_SEED = 20


@dataclass(frozen=True, slots=True)
class Lengths:
    """A log-normal distribution of text lengths, drawn without luck: its quantiles in a shuffled order.

    Attributes:
        mean: Mean number of tokens, special tokens included, before the limit.
        sigma: Standard deviation of the logarithm; 1 gives the long tail of web text.
        limit: Longer ones are cut to so many tokens; below 512, since a cut may give the tokenizer a few more.
    """

    mean: float = 50.0
    sigma: float = 1.0
    limit: int = 500

    def draw(self, count: int) -> np.ndarray:
        """Token counts (count,), int64, each at least 3."""
        quantiles = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).numpy()
        drawn = np.exp(np.log(self.mean) - self.sigma**2 / 2 + self.sigma * quantiles)
        return np.random.default_rng(_SEED).permutation(np.clip(np.rint(drawn), 3, self.limit).astype(np.int64))


def sample_texts() -> list[str]:
    """The texts of the sample corpus that are not empty."""
    # Not splitlines(): texts may hold line separators of their own.
    lines = sample_path().read_text(encoding="utf-8").strip().split("\n")
    return [text for text in (json.loads(line)["text"] for line in lines) if text.strip()]


def cut_texts(tokenizer_directory: Path, count: int, lengths: Lengths) -> list[str]:
    """Texts that lie end to end in the corpus, which starts again when it is through.

    Args:
        tokenizer_directory: Holds the tokenizer that counts.
        count: How many.
        lengths: How long.
    """
    stream = " ".join(sample_texts())
    encodings = Tokenizer.load(tokenizer_directory).encode([stream], offsets=True)
    spans = encodings.offsets
    assert spans is not None
    # Two of the tokens are <s> and </s>.
    content = lengths.draw(count) - 2
    bounds = np.concatenate([[0], np.cumsum(content)])
    first, last = bounds[:-1] % len(spans), (bounds[1:] - 1) % len(spans)
    cuts = zip(spans[first, 0].tolist(), spans[last, 1].tolist(), strict=True)
    # A text that reaches over the end goes on at the beginning.
    return [stream[start:stop] if start < stop else stream[start:] + " " + stream[:stop] for start, stop in cuts]
