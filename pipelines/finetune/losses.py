"""Losses of a run, all on one forward pass.

Letters: B sequences, P translation pairs, D width, C labels, T packed tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.finetune.batches import TrainingBatch
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder, initialise
from xlmr_core.heads import SequenceHead, pool
from xlmr_core.tasks import embed
from xlmr_core.tasks.losses import cross_entropy


class LanguageAndEmbedding(nn.Module):
    """One encoder, a language head on `<s>`, and normalised mean pooling.

    Args:
        config: Shape of the encoder.
        num_labels: Languages.
    """

    def __init__(self, config: EncoderConfig, num_labels: int) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.language = SequenceHead(config, num_labels)
        initialise(self.language, config.initializer_range)

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Language logits (B, C) and unit vectors (B, D), both float32."""
        hidden_TD = self.encoder(batch.packed)
        logits_BC = self.language(hidden_TD, batch.packed)
        return logits_BC.float(), F.normalize(pool(hidden_TD, batch.packed, ("mean",)), dim=1)


def info_nce(first_PD: Tensor, second_PD: Tensor, group_P: Tensor, temperature: float) -> Tensor:
    """Symmetric contrastive loss with in-batch negatives, see `embed.loss`.

    Args:
        first_PD: Vectors of one side.
        second_PD: Vectors of their translations.
        group_P: Pairs of the same group mean the same, so they are no negatives of each other.
        temperature: Divides the cosine.
    """
    return embed.loss(first_PD, second_PD, scale=1 / temperature, group_P=group_P, symmetric=True)


def joint_loss(
    model: nn.Module, batch: TrainingBatch, *, contrastive_weight: float = 1.0, temperature: float = 0.05
) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the language loss and the contrastive loss, and what to log.

    Args:
        model: Gives language logits (B, C) and unit vectors (B, D).
        batch: What the step sees.
        contrastive_weight: Of the contrastive loss; its gradient is several times that of the language loss.
        temperature: See `info_nce`.

    Returns:
        The scalar to differentiate; the parts, the accuracies and the counts as plain numbers.
    """
    logits_BC, vectors_BD = model(batch)
    language = cross_entropy(logits_BC, batch.label)
    first_PD, second_PD = vectors_BD[batch.pairs[:, 0]], vectors_BD[batch.pairs[:, 1]]
    with torch.autocast(logits_BC.device.type, enabled=False):
        contrastive = info_nce(first_PD, second_PD, batch.group, temperature)
    counted_B = batch.label >= 0
    right = (logits_BC.argmax(1) == batch.label)[counted_B].float().mean()
    metrics = {
        "language_loss": language.item(),
        "language_accuracy": right.item(),
        "contrastive_loss": contrastive.item(),
        "pairs": float(len(batch.pairs)),
        "tokens": float(len(batch.packed.ids)),
        "sequences": float(len(batch.label)),
    }
    return language + contrastive_weight * contrastive, metrics
