"""How good what is being trained is, language by language, on examples that it does not learn from.

The learner's own modules answer, where they lie and as they are, in the graph that `annotate` runs, and are counted as
`xlmr evaluate` counts: a measure in the middle of a run is the one that a model directory of that moment would get.
Nothing of the training changes by it: no weight, no gradient, no generator of chance, no module's mode.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.evaluate.scores import Scores, score
from pipelines.evaluate.words import WordScores
from pipelines.examples import Example
from pipelines.finetune.by_language import NO_LANGUAGE, WIDTH, language_sums
from pipelines.finetune.learner import Learner
from pipelines.finetune.steps import Stream
from xlmr_core.encoder import Encoder
from xlmr_core.graph import GraphPlan, ModelGraph
from xlmr_core.metrics import Classification, EntityScores, MultiLabel, over_languages


def validate(
    encoder: Encoder, head: nn.Module, plan: GraphPlan, examples: Iterable[Example], *, max_tokens: int | None = None
) -> Scores:
    """Asks what is being trained.

    Args:
        encoder: Of the learner.
        head: That is asked.
        plan: An `evaluation_plan` of the directory that training started from.
        examples: Checked already; of several workers, this one's share.
        max_tokens: Budget of a packed batch; default: that of the device.
    """
    graph = ModelGraph.of_modules(plan, encoder, {plan.annotations[0].name: head}, max_tokens=max_tokens)
    with at_rest(encoder, head):
        return score(plan.annotations[0].model, plan.annotations[0].kind, examples, graph=graph)


@dataclass(frozen=True, slots=True)
class LanguageLoss:
    """How a goal does that has no other measure than its loss.

    Attributes:
        languages: Names.
        sums: Loss, targets and tokens of each (L, 3), see `by_language`.
    """

    languages: tuple[str, ...]
    sums: Tensor


@torch.no_grad()
def validation_loss(learner: Learner, stream: Stream, *, rank: int = 0, workers: int = 1) -> LanguageLoss:
    """The loss on texts that are not learnt from.

    Args:
        learner: What is being trained.
        stream: The texts, unshuffled; the same tokens are hidden each time.
        rank: Which worker this is; it takes its share.
        workers: How many there are.
    """
    languages, device = stream.data.languages, next(learner.parameters()).device
    sums = torch.zeros(len(languages), WIDTH, dtype=torch.float64)
    with at_rest(learner):
        for step in range(rank, stream.per_epoch, workers):
            for part, weight in stream.parts(step):
                batch = stream.build(part, weight, step)
                losses = learner.losses(batch.to(device))
                sums += language_sums(batch, losses.of_targets, losses.counts, len(languages))
    return LanguageLoss(languages, sums)


@contextmanager
def at_rest(*modules: nn.Module) -> Iterator[None]:
    """Without dropout inside; afterwards every part is in the mode that it was in, frozen ones too."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, training in before:
            part.training = training


def chosen_examples(examples: Iterable[Example], most: int | None, *, seed: int) -> list[Example]:
    """Examples to validate on, in their order: of each language all, or so many drawn by chance, the same each time."""
    if most is None:
        return list(examples)
    kept: dict[str, list[tuple[int, Example]]] = {}
    seen: Counter[str] = Counter()
    chance = random.Random(seed)
    # Reservoir sampling (Vitter 1985, algorithm R), so that a large file is never in memory as a whole.
    for number, example in enumerate(examples):
        of_language = kept.setdefault(example.language, [])
        seen[example.language] += 1
        if len(of_language) < most:
            of_language.append((number, example))
        elif (place := chance.randrange(seen[example.language])) < most:
            of_language[place] = number, example
    numbered = sorted((pair for pairs in kept.values() for pair in pairs), key=lambda pair: pair[0])
    return [example for _, example in numbered]


def merged(parts: Sequence[Scores]) -> Scores:
    """What several workers counted, as one would have; except for retrieval, which needs all texts at once."""
    whole = Scores(shown=next((part.shown for part in parts if part.shown), ()))
    for part in parts:
        for language, counts in part.by_language.items():
            there = whole.by_language.get(language)
            whole.by_language[language] = counts if there is None else there.merge(counts)
        for code, count in part.unread.items():
            whole.unread[code] = whole.unread.get(code, 0) + count
    return whole


def measures(scores: Scores) -> dict[str, float]:
    """Each measure's mean over the languages: all count the same, however many records they have."""
    return {name: spread.mean for name, spread in over_languages(scores.measures()).items()}


def validation_line(scores: Scores, metric: str) -> dict[str, object]:
    """A validation for a line of metrics: all measures on the whole, the deciding one of each language.

    Returns:
        `mean` over languages and `all` records, measures by name; `languages`, values of the metric by language.
    """
    of_language = scores.measures()
    return {
        "metric": metric,
        "mean": measures(scores),
        "all": scores.together() if of_language else {},
        "languages": {name or NO_LANGUAGE: found.get(metric, math.nan) for name, found in of_language.items()},
    }


def said_labels(scores: Scores) -> tuple[Mapping[str, int], Mapping[str, int]] | None:
    """How often each label is gold, and how often predicted; None where answers have no labels."""
    gold: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    for found in scores.by_language.values():
        counts = found.labels if isinstance(found, WordScores) else found
        match counts:
            case Classification():
                for (right, said), count in counts.confusions.items():
                    gold[right] += count
                    predicted[said] += count
            case MultiLabel() | EntityScores():
                gold += counts.hits.gold
                predicted += counts.hits.predicted
            case _:
                return None
    return gold, predicted
