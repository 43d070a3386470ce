"""How surprised a language model is by each token, and by each character of the text they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, inf, log

import numpy as np
from numpy.typing import ArrayLike

from xlmr_core.errors import ArgumentError
from xlmr_core.metrics.means import Mean, exact_sum

# exp of more is no float64.
_LARGEST = 709.78


@dataclass(slots=True)
class Perplexity:
    """Perplexity of tokens, for masked language models of those that were hidden (Salazar et al. 2020).

    A tokenizer cuts one language into more tokens than another, each easier to guess, so perplexities of tokens do not
    compare between languages or tokenizers. What a text costs, shared out over its characters or its bytes in UTF-8,
    does: over bytes for one script, over characters or whole translations for several.

    Attributes:
        surprisal: Negative log likelihood of all tokens, in nats.
        characters: Code points of the texts, where texts were counted.
        bytes: Their bytes in UTF-8.
    """

    surprisal: Mean = field(default_factory=Mean)
    characters: int = 0
    bytes: int = 0

    def add(self, negative_log_likelihood: ArrayLike) -> None:
        """Counts tokens.

        Args:
            negative_log_likelihood: One natural logarithm a token, any shape.

        Raises:
            ArgumentError: One is infinite or not a number.
        """
        self.surprisal.add(negative_log_likelihood)

    def add_texts(self, negative_log_likelihood: ArrayLike, tokens: Sequence[int], texts: Sequence[str]) -> None:
        """Counts whole texts; row r of all belongs to one.

        Args:
            negative_log_likelihood: The sum over a text's tokens, in nats.
            tokens: How many these are.
            texts: What they stand for.

        Raises:
            ArgumentError: A sum is infinite or not a number, or there are more or fewer of one than of another.
        """
        rows = np.shape(negative_log_likelihood)
        if rows != (len(tokens),) or len(tokens) != len(texts):
            raise ArgumentError(f"{rows} sums, {len(tokens)} counts and {len(texts)} texts, must be as many")
        self.surprisal = self.surprisal.merge(Mean(exact_sum(negative_log_likelihood), sum(tokens)))
        self.characters += sum(map(len, texts))
        self.bytes += sum(len(text.encode()) for text in texts)

    def merge(self, other: "Perplexity") -> "Perplexity":
        """Both together."""
        return Perplexity(
            self.surprisal.merge(other.surprisal), self.characters + other.characters, self.bytes + other.bytes
        )

    def result(self) -> dict[str, float]:
        """`perplexity` (inf beyond 1e308), `negative_log_likelihood` (mean of a token, in nats) and `tokens`.

        Where texts were counted also `bits_per_character` and `bits_per_byte`.
        """
        mean = self.surprisal.value
        result = {
            "perplexity": inf if mean > _LARGEST else exp(mean),
            "negative_log_likelihood": mean,
            "tokens": float(self.surprisal.count),
        }
        if self.characters:
            bits = float(self.surprisal.total) / log(2)
            result |= {"bits_per_character": bits / self.characters, "bits_per_byte": bits / self.bytes}
        return result
