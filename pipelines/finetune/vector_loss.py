"""Which loss sentence vectors are trained with, and the loss of a whole step.

Letters: V vectors of a step, P pairs, N negatives, M second texts, R records, D width, K width of a teacher's vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.examples import Example
from xlmr_core.errors import TaskError
from xlmr_core.tasks import embed_losses
from xlmr_core.tasks.losses import group_of_item

# "info_nce"      a text finds its second texts of gold 1 among those of all records; gold 0 is a hard negative
# "cosent"        what has a higher gold is closer
# "cosine_mse"    the cosine is the gold, from -1 to 1
# "margin_mse"    a first second text is closer than another of the record by as much as the golds say, by dot product
# "teacher_mse"   the vector of a text, and of each of its second texts, is that which a teacher gives the text
VectorLossName = Literal["info_nce", "cosent", "cosine_mse", "margin_mse", "teacher_mse"]

# Both mean what they say whatever the length of a vector; the others compare directions.
_WITH_LENGTHS = ("margin_mse", "teacher_mse")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class VectorLoss:
    """A loss with its settings.

    Attributes:
        name: Which.
        scale: Multiplies cosines, of "info_nce" and "cosent"; one over the temperature.
        symmetric: Whether second texts look for their texts too, with "info_nce".
        dimensions: Matryoshka: the loss is the sum over vectors cut to each of these lengths; none for whole vectors.
        weights: What each of them counts; none for all alike.
    """

    name: VectorLossName = "info_nce"
    scale: float = 20.0
    symmetric: bool = False
    dimensions: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def compares_directions(self) -> bool:
        """Whether the length of a vector means nothing to it."""
        return self.name not in _WITH_LENGTHS

    def check(self, width: int, teacher_width: int | None = None) -> None:
        """Holds the settings against the model.

        Args:
            width: Values of its vectors.
            teacher_width: Those of the teacher's; None without one.

        Raises:
            TaskError: All that is wrong.
        """
        problems = []
        if self.scale <= 0:
            problems.append(f"vectors.scale={self.scale}, it must be positive")
        if self.symmetric and self.name != "info_nce":
            problems.append(f"vectors.symmetric=true, loss={self.name} has one direction; leave it out")
        if any(not 0 < size <= width for size in self.dimensions):
            problems.append(
                f"vectors.dimensions={list(self.dimensions)}, each must be from 1 to the {width} values of a vector"
            )
        if self.weights and len(self.weights) != len(self.dimensions):
            problems.append(f"dimension_weights={list(self.weights)}, there must be one for each of dimensions")
        if self.name == "teacher_mse" and teacher_width is None:
            problems.append("vectors.loss=teacher_mse, it needs a teacher; name one")
        if self.name != "teacher_mse" and teacher_width is not None:
            problems.append(f"a teacher was named, loss={self.name} has no use for it; pass loss=teacher_mse")
        if teacher_width not in (None, width):
            problems.append(
                f"the teacher's vectors have {teacher_width} values, those of the model {width}; choose another"
            )
        if problems:
            raise TaskError("; ".join(problems))

    def problems(self, examples: Sequence[Example]) -> list[str]:
        """What is wrong with gold values, each with its place."""
        found = []
        for example in examples:
            gold = example.gold if isinstance(example.gold, tuple) else ()
            match self.name:
                case "info_nce" if set(gold) - {0.0, 1.0}:
                    found.append(
                        f"{example.source}: loss=info_nce takes 1 (fits) and 0 (does not); graded ones are for cosent"
                    )
                case "info_nce" if 1.0 not in gold:
                    found.append(f"{example.source}: no second text fits, loss=info_nce needs one; use cosent")
                case "cosine_mse" if any(not -1 <= value <= 1 for value in gold if isinstance(value, float)):
                    found.append(f"{example.source}: loss=cosine_mse takes cosines, from -1 to 1; scale the scores")
                case "margin_mse" if len(gold) < 2:
                    found.append(f"{example.source}: loss=margin_mse compares second texts, there must be two")
        return found

    def __call__(self, vectors_VD: Tensor, splits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a step, float32, a scalar.

        Args:
            vectors_VD: Of each record's text, then of its second texts.
            splits: Record r has the vectors splits[r] to splits[r + 1] (R+1,), int64.
            targets: Gold and number of each text (V, 2), see `text_number`; the gold of a record's own text means
                nothing. For "teacher_mse" the teacher's vector of each record (R, K), float32.
        """
        if self.dimensions:
            plain = replace(self, dimensions=(), weights=())
            weights = self.weights or (1.0,) * len(self.dimensions)
            return embed_losses.matryoshka(
                lambda cut_VD: plain(cut_VD, splits, targets), vectors_VD, self.dimensions, weights
            )
        record_V = group_of_item(splits)
        if self.name == "teacher_mse":
            return embed_losses.teacher_mse(vectors_VD, targets[:, : vectors_VD.shape[1]][record_V])
        text_V = splits[:-1][record_V]
        second_M = (text_V != torch.arange(len(text_V), device=text_V.device)).nonzero().squeeze(1)
        gold_M, text_M = targets[second_M, 0].float(), text_V[second_M]
        if self.name == "info_nce":
            return self._info_nce(vectors_VD, text_M, second_M, gold_M, targets[:, 1].long())
        firsts_MD, seconds_MD = vectors_VD[text_M], vectors_VD[second_M]
        if self.name == "margin_mse":
            counts = splits - torch.arange(len(splits), device=splits.device)
            return embed_losses.margin_mse((firsts_MD * seconds_MD).sum(1), gold_M, counts)
        cosine_M = F.cosine_similarity(firsts_MD, seconds_MD)
        return (
            embed_losses.cosent(cosine_M, gold_M, scale=self.scale)
            if self.name == "cosent"
            else F.mse_loss(cosine_M, gold_M)
        )

    def _info_nce(
        self, vectors_VD: Tensor, text_M: Tensor, second_M: Tensor, gold_M: Tensor, number_V: Tensor
    ) -> Tensor:
        """Every fitting second text is a pair; texts that stand in two pairs make them mean the same."""
        fits_M = gold_M == 1
        text_P, second_P, negative_N = text_M[fits_M], second_M[fits_M], second_M[~fits_M]
        return embed_losses.info_nce(
            vectors_VD[text_P],
            vectors_VD[second_P],
            vectors_VD[negative_N],
            scale=self.scale,
            symmetric=self.symmetric,
            group_PG=torch.stack([number_V[text_P], number_V[second_P]], dim=1),
            negative_group_N=number_V[negative_N],
        )


def refuse(problems: Sequence[str]) -> None:
    """Raises TaskError for problems with gold values, if there are any; a good number of them is shown."""
    if problems:
        more = f"\nand {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise TaskError("\n".join(problems[:_SHOWN]) + more)
