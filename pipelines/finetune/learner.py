"""What is trained: an encoder with one head or several, each with its objective."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pipelines.finetune.language_model import LanguageModel
from pipelines.finetune.objective import Losses
from pipelines.finetune.sentence_vectors import SentenceVectors
from pipelines.finetune.steps import MicroBatch
from pipelines.finetune.supervised import Supervised
from xlmr_core.encoder import Encoder

# What is learnt on a head: how examples become sequences and targets, and the loss.
Objective = Supervised | LanguageModel | SentenceVectors


class Learner(nn.Module):
    """An encoder with its heads.

    Args:
        encoder: Its weights change.
        heads: Likewise, by the name of what is learnt on them.
        objectives: By the same names.

    Attributes:
        gathered: Where workers have parts of it, makes a whole one on a device; see `sharding`.
    """

    gathered: "Callable[[torch.device | None], Learner] | None" = None

    def __init__(self, encoder: Encoder, heads: Mapping[str, nn.Module], objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, nn.ModuleDict(dict(heads))
        self.objectives = dict(objectives)

    def losses(self, batch: MicroBatch) -> Losses:
        """Of a micro-batch; goals that compare all vectors of a step have none, see `contrastive`."""
        objective = self.objectives[batch.goal]
        assert not isinstance(objective, SentenceVectors)
        return objective.losses(self.encoder, self.heads[batch.goal], batch)

    def vectors(self, batch: MicroBatch) -> Tensor:
        """Of the sequences of a micro-batch of such a goal (B, D), float32."""
        objective = self.objectives[batch.goal]
        assert isinstance(objective, SentenceVectors)
        return objective.vectors(self.encoder, self.heads[batch.goal], batch)
