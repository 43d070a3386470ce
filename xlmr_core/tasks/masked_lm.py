"""What tasks on the masked-LM head share, and how such a head is trained.

The head is the one layer that is as wide as the vocabulary, 250,002 for XLM-R: logits exist only for the tokens that
are asked about, and only for so many of them at once as fit into 128 MB.

Letters: T packed tokens, M of them that are asked about, D width, V tokens of the vocabulary.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.heads import IGNORED, MaskedLMHead
from xlmr_core.tasks.vocabulary_loss import vocabulary_loss
from xlmr_core.tokenization import Tokenizer
from xlmr_core.tokenization.encoding import bounds

# Most logits at a time.
_LOGITS = 1 << 25


class MaskedLM(nn.Module):
    """The head with the vocabulary that it speaks of.

    Args:
        head: Logits (M, V) of hidden states (M, D).
        vocab_size: V.
        tokenizer_directory: Where the tokenizer is; it is read when it is first asked for.
    """

    def __init__(self, head: nn.Module, vocab_size: int, tokenizer_directory: Path) -> None:
        super().__init__()
        self.head = head
        self._portion = max(_LOGITS // vocab_size, 1)
        self._tokenizer_directory = tokenizer_directory

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "MaskedLM":
        """Reads it from a checkpoint.

        Raises:
            CheckpointError: There is no such head, or it does not fit.
        """
        vocab_size = checkpoint.num_outputs("masked-lm")
        return cls(checkpoint.load_head("masked-lm"), vocab_size, checkpoint.tokenizer_directory)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the checkpoint."""
        return Tokenizer.load(self._tokenizer_directory)

    @property
    def mask(self) -> int:
        """Id of the mask; a plan for a tokenizer that has none is refused."""
        mask = self.tokenizer.special.mask
        assert mask is not None
        return mask

    def forward(self, hidden_MD: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Logits in float32, a portion of the M tokens at a time: which of them, and (their number, V)."""
        for first in range(0, len(hidden_MD), self._portion):
            rows = slice(first, first + self._portion)
            yield rows, self.head(hidden_MD[rows]).float()


def hide_tokens(
    ids_T: np.ndarray,
    special_T: np.ndarray,
    rng: np.random.Generator,
    *,
    mask: int,
    replacements: np.ndarray,
    rate: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """Dynamic masking: hides tokens for a model to find again, other ones in every epoch.

    Each ordinary token is chosen with probability `rate`, alone. Of the chosen, 80 % become the mask, 10 % a random
    token and 10 % stay as they are. Source: Devlin et al. 2019, appendix A.1; fairseq's `MaskTokensDataset`, which
    also replaces by ordinary tokens only.

    Args:
        ids_T: Token ids (T,).
        special_T: Which of them are special tokens and stay (T,), bool.
        rng: Where chance comes from; equal generators hide equally.
        mask: Id of the mask.
        replacements: Ids that random tokens are drawn from.
        rate: Share of the ordinary tokens that is chosen, 0 to 1.

    Returns:
        Ids for the model, and targets: the hidden id where one was chosen, else -100; both (T,).
    """
    chosen_T = (rng.random(len(ids_T)) < rate) & ~special_T
    lot_T = rng.random(len(ids_T))
    random_T = replacements[rng.integers(len(replacements), size=len(ids_T))]
    shown_T = np.where(lot_T < 0.8, mask, np.where(lot_T < 0.9, random_T, ids_T))
    hidden_T = np.where(chosen_T, shown_T, ids_T).astype(ids_T.dtype)
    return hidden_T, np.where(chosen_T, ids_T, IGNORED).astype(np.int64)


def next_tokens(ids_T: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
    """What a causal language model should say at each token: the next one of its sequence.

    Equal to the labels that `XLMRobertaForCausalLM` shifts for itself, special tokens included.

    Args:
        ids_T: Token ids of all sequences, end to end (T,).
        lengths_B: Tokens of each sequence, all positive.

    Returns:
        Ids, -100 at the last token of each sequence (T,), int64.
    """
    targets_T = np.roll(ids_T, -1).astype(np.int64)
    targets_T[bounds(lengths_B)[1:] - 1] = IGNORED
    return targets_T


def losses(head: MaskedLMHead, hidden_TD: Tensor, targets_T: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of the tokens with a target, float32; that of `XLMRobertaForMaskedLM` and `...ForCausalLM`.

    Only these tokens get logits, and only so many at a time as fit into 256 MB.

    Args:
        head: The head itself.
        hidden_TD: Last hidden states (T, D).
        targets_T: Ids, -100 where there is nothing to find (T,), int64.

    Returns:
        The mean, a scalar: 0 when no token has a target, where transformers' is NaN; and the loss of each such token in
        their order, without gradient (M,).
    """
    at_M = torch.nonzero(targets_T != IGNORED).squeeze(1)
    features_MD = head.features(hidden_TD[at_M])
    if not len(at_M):
        return features_MD.float().sum(), features_MD.new_zeros(0)
    return vocabulary_loss(features_MD, head.decoder.weight, head.decoder.bias, targets_T[at_M])
