"""Loss and tokens of each language: sums, which can be added over micro-batches, workers and steps.

Letters: B records, W sequences, T tokens, K rows of targets, L languages.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.finetune.steps import MicroBatch
from xlmr_core.heads import IGNORED

# Columns of the sums.
LOSS, COUNTED, TOKENS = range(3)
WIDTH = 3
OTHERS, NO_LANGUAGE = "(others)", "(none)"
# Languages that a line of metrics names; all of them are in the line at the end of an epoch.
MOST_NAMED = 20


def language_sums(batch: MicroBatch, loss_K: Tensor, counts_K: Tensor, languages: int) -> Tensor:
    """What a micro-batch adds.

    Args:
        batch: Has a language for each record.
        loss_K: What each target adds to the loss, see `xlmr_core.tasks.weighting`; of all rows of targets, or only of
            those that are not ignored.
        counts_K: What each target counts.
        languages: How many there are, L.

    Returns:
        Loss, what its targets count, and tokens of each language (L, 3), float64, on the CPU.
    """
    sums = torch.zeros(languages, WIDTH, dtype=torch.float64)
    language_K = torch.from_numpy(row_languages(batch).astype(np.int64))
    if len(loss_K) < len(language_K):
        language_K = language_K[batch.targets.cpu() != IGNORED]
    of_target = torch.stack([loss_K.detach(), counts_K.detach()], 1).double().cpu()
    sums[:, :TOKENS].index_add_(0, language_K, of_target)
    lengths = np.asarray(batch.packed.lengths)
    of_sequence = _of_sequences(batch)
    sums[:, TOKENS] = torch.from_numpy(np.bincount(of_sequence, weights=lengths, minlength=languages))
    return sums


def row_languages(batch: MicroBatch) -> np.ndarray:
    """The language of each row of targets (K,), whether rows belong to records, sequences or tokens.

    Which of them they are follows from their number: where two of these numbers are equal, so are their languages.
    """
    rows, of_sequence = len(batch.targets), _of_sequences(batch)
    if rows == len(batch.language):
        return batch.language
    return of_sequence if rows == len(of_sequence) else np.repeat(of_sequence, np.asarray(batch.packed.lengths))


def _of_sequences(batch: MicroBatch) -> np.ndarray:
    return np.repeat(batch.language, np.diff(batch.splits.cpu().numpy()))


def languages_of(sums: Tensor, names: Sequence[str], most: int | None = MOST_NAMED) -> dict[str, dict[str, float]]:
    """Loss and tokens by language, those with most tokens first, for a line of metrics.

    Args:
        sums: Of all micro-batches and workers (L, 3).
        names: Of the languages.
        most: So many are named, the others are put together; None for all.

    Returns:
        Only languages that have tokens; a loss is nan where there was no target.
    """
    order = [number for number in np.argsort(-sums[:, TOKENS].numpy(), kind="stable").tolist() if sums[number, TOKENS]]
    named = order if most is None else order[:most]
    lines = {names[number] or NO_LANGUAGE: _line(sums[number]) for number in named}
    if rest := order[len(named) :]:
        lines[OTHERS] = _line(sums[rest].sum(0)) | {"languages": float(len(rest))}
    return lines


def whole_loss(sums: Tensor) -> float:
    """Mean loss over all languages."""
    return _line(sums.sum(0))["loss"]


def _line(sums_3: Tensor) -> dict[str, float]:
    loss, counted, tokens = sums_3.tolist()
    return {"loss": loss / counted if counted else math.nan, "tokens": tokens}
