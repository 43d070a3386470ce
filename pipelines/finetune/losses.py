"""Losses of a run, all on one forward pass.

Letters: B sequences, P translation pairs, D width, C labels, T packed tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.finetune.batches import TrainingBatch
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.encoder import Encoder, initialise
from xlmr_core.heads import SequenceClassificationHead, pool


class LanguageAndEmbedding(nn.Module):
    """One encoder, a language head on `<s>`, and normalised mean pooling.

    Args:
        config: Shape of the encoder.
        num_labels: Languages.
    """

    def __init__(self, config: XLMRobertaConfig, num_labels: int) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.language = SequenceClassificationHead(config, num_labels)
        initialise(self.language, config.initializer_range)

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Language logits (B, C) and unit vectors (B, D), both float32."""
        hidden_TD = self.encoder(batch.packed)
        logits_BC = self.language(hidden_TD, batch.packed)
        return logits_BC.float(), F.normalize(pool(hidden_TD, batch.packed, ("mean",)), dim=1)


def info_nce(first_PD: Tensor, second_PD: Tensor, group_P: Tensor, temperature: float) -> Tensor:
    """Symmetric contrastive loss with in-batch negatives (InfoNCE, van den Oord et al. 2018; LaBSE, Feng et al. 2022).

    Args:
        first_PD: Unit vectors of one side.
        second_PD: Unit vectors of their translations.
        group_P: Pairs of the same group mean the same, so they are no negatives of each other.
        temperature: Divides the cosine.

    Returns:
        Mean loss, a scalar; 0 for no pairs.
    """
    if not len(first_PD):
        return first_PD.sum()
    same_PP = (group_P[:, None] == group_P[None, :]).fill_diagonal_(False)
    logits_PP = (first_PD @ second_PD.T / temperature).masked_fill(same_PP, -torch.inf)
    target_P = torch.arange(len(first_PD), device=first_PD.device)
    return (F.cross_entropy(logits_PP, target_P) + F.cross_entropy(logits_PP.T, target_P)) / 2


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
    language = F.cross_entropy(logits_BC, batch.label)
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
