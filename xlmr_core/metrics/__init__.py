"""How good decoded predictions are: one file a kind of prediction, numpy only.

An accumulator counts as predictions come: `add` a batch, `merge` what another worker counted, ask for the `result`. It
holds counts and exact sums, never logits, so the result is the same to the last bit however the records were cut into
batches and shared among workers; what must hold values says so and how many.

All shares are 0 to 1 (the official scripts of SQuAD and MLQA print a hundred times that). A mean over no records is
nan; precision, recall and F1 of nothing are 0, as in scikit-learn and seqeval.
"""

from xlmr_core.metrics.answers import QuestionAnswering
from xlmr_core.metrics.calibration import Calibration, fit_temperature, fit_thresholds
from xlmr_core.metrics.classification import Accuracy, Classification, MultiLabel
from xlmr_core.metrics.entities import EntityScores
from xlmr_core.metrics.languages import Spread, over_languages
from xlmr_core.metrics.perplexity import Perplexity
from xlmr_core.metrics.ranking import Ranking
from xlmr_core.metrics.regression import Regression
from xlmr_core.metrics.retrieval import Retrieval, retrieval_accuracy

__all__ = [
    "Accuracy",
    "Calibration",
    "Classification",
    "EntityScores",
    "MultiLabel",
    "Perplexity",
    "QuestionAnswering",
    "Ranking",
    "Regression",
    "Retrieval",
    "Spread",
    "fit_temperature",
    "fit_thresholds",
    "over_languages",
    "retrieval_accuracy",
]
