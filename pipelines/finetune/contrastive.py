"""A loss over all vectors of a step at once, in the memory of one micro-batch: gradient caching (Gao et al. 2021).

In-batch negatives are the better the more there are, and each of them is a whole pass through the encoder. So vectors
are computed twice: first without gradient, for the loss and its gradient with respect to each vector; then micro-batch
by micro-batch with gradient, to hand that on to the weights. What is negative for one pair is the whole step, on
whichever worker it was computed.

Letters: V vectors of a step, B of them of a micro-batch, D width.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.finetune.sentence_vectors import SentenceVectors
from pipelines.finetune.steps import MicroBatch, Stream, is_short
from xlmr_core.encoder import Encoder
from xlmr_core.tokenization.encoding import bounds

# Adds up a tensor over all workers, in place.
Reduce = Callable[[Tensor], object]


def backward(
    vectors: Callable[[int], Tensor],
    sizes: Sequence[int],
    own: Iterable[int],
    loss: Callable[[Tensor], Tensor],
    *,
    seeds: Sequence[int],
    width: int,
    device: torch.device | str = "cpu",
    reduce: Reduce | None = None,
    filler: int | None = None,
) -> float:
    """Adds a worker's part of the gradient of a loss over all vectors of a step; the workers' parts sum up to it.

    Args:
        vectors: Computes those of a micro-batch by its number (B, D), float32; called twice for each of `own` but the
            last.
        sizes: Vectors of each micro-batch of the step, those of all workers. They lie in the step in this order.
        own: Numbers of the micro-batches that this worker computes.
        loss: Of all vectors of the step (V, D), a scalar.
        seeds: Of chance in each micro-batch, which must be the same both times.
        width: Values of a vector, D.
        device: Where vectors are.
        reduce: Adds up a tensor over all workers; None for one.
        filler: Number of a micro-batch of another worker that is computed too, so that all compute as many.

    Returns:
        The loss of the step for the worker that computes the first micro-batch, 0 for the others, so that losses sum
        up as gradients do.
    """
    own, ends = list(own), bounds(np.asarray(sizes)).tolist()
    tells, own = 0 in own, own if filler is None else [filler, *own]
    places = [slice(*place) for place in pairwise(ends)]
    whole_VD = torch.zeros(ends[-1], width, device=device)

    def compute(number: int) -> Tensor:
        torch.manual_seed(seeds[number])
        return vectors(number)

    with torch.no_grad():
        for number in own[:-1]:
            whole_VD[places[number]] = compute(number)
    # One micro-batch fits into memory with all that its gradient needs: the last need not be computed again.
    kept_BD = compute(own[-1]) if own else None
    if kept_BD is not None:
        whole_VD[places[own[-1]]] = kept_BD.detach()
    if filler is not None:
        whole_VD[places[filler]] = 0.0
    if reduce is not None:
        reduce(whole_VD)
    if kept_BD is None:
        return 0.0
    with torch.autocast(whole_VD.device.type, enabled=False):
        value = loss(whole_VD.requires_grad_())
        (gradient_VD,) = torch.autograd.grad(value, whole_VD)
    if filler is not None:
        gradient_VD[places[filler]] = 0.0
    kept_BD.backward(gradient_VD[places[own[-1]]])  # type: ignore[no-untyped-call]
    del kept_BD
    for number in own[:-1]:
        compute(number).backward(gradient_VD[places[number]])  # type: ignore[no-untyped-call]
    return value.item() if tells else 0.0


def accumulate(
    objective: SentenceVectors,
    encoder: Encoder,
    head: nn.Module,
    stream: Stream,
    step: int,
    *,
    seed: int = 0,
    rank: int = 0,
    workers: int = 1,
    reduce: Reduce | None = None,
    bfloat16: bool = False,
    vectors: Callable[[MicroBatch], Tensor] | None = None,
    even: bool = False,
) -> tuple[float, int]:
    """A worker's part of the gradient of a step of sentence vectors; micro-batch n belongs to worker n modulo workers.

    Args:
        objective: What is learnt.
        encoder: Gets gradients.
        head: Likewise: the modules behind pooling.
        stream: What is learnt from; all workers cut it alike.
        step: Counted from 0.
        seed: Of the run.
        rank: Which worker this is, counted from 0.
        workers: How many there are.
        reduce: Adds up a tensor over them; None for one.
        bfloat16: Whether matrix products of the encoder are of this type.
        vectors: What computes those of a micro-batch; default: `objective.vectors`.
        even: Whether all workers compute as many micro-batches, see `Steps.micro_batches`.

    Returns:
        Its part of the loss, and the tokens that it read, each once.
    """
    parts = [part for part, _ in stream.parts(step)]
    device = next(encoder.parameters()).device
    seeds = [seed * 1_000_003 + step * 65_537 + number for number in range(len(parts))]
    own = range(rank, len(parts), workers)
    vectors = vectors or partial(objective.vectors, encoder, head)

    def of_part(number: int) -> Tensor:
        batch = stream.build(parts[number], 1.0, seeds[number]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return vectors(batch)

    of_step = objective.step_loss(parts, device)
    loss = backward(
        of_part,
        [len(part.lengths) for part in parts],
        own,
        lambda whole_VD: of_step(whole_VD) * stream.settings.weight,
        seeds=seeds,
        width=objective.width,
        device=device,
        reduce=reduce,
        filler=len(parts) - 1 if even and is_short(len(parts), rank, workers) else None,
    )
    return loss, sum(len(parts[number].ids) for number in own)
