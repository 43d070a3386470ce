"""How surprised a language model is by each token."""

from dataclasses import dataclass, field
from math import exp, inf

from numpy.typing import ArrayLike

from xlmr_core.metrics.means import Mean

# exp of more is no float64.
_LARGEST = 709.78


@dataclass(slots=True)
class Perplexity:
    """Perplexity of tokens, for masked language models of those that were hidden (Salazar et al. 2020).

    Attributes:
        surprisal: Negative log likelihood of all tokens, in nats.
    """

    surprisal: Mean = field(default_factory=Mean)

    def add(self, negative_log_likelihood: ArrayLike) -> None:
        """Counts tokens.

        Args:
            negative_log_likelihood: One natural logarithm a token, any shape.

        Raises:
            ArgumentError: One is infinite or not a number.
        """
        self.surprisal.add(negative_log_likelihood)

    def merge(self, other: "Perplexity") -> "Perplexity":
        """Both together."""
        return Perplexity(self.surprisal.merge(other.surprisal))

    def result(self) -> dict[str, float]:
        """`perplexity`, `negative_log_likelihood` (mean of a token, in nats) and `tokens`; inf beyond 1e308."""
        mean = self.surprisal.value
        return {
            "perplexity": inf if mean > _LARGEST else exp(mean),
            "negative_log_likelihood": mean,
            "tokens": float(self.surprisal.count),
        }
