"""Learning sentence vectors: from pairs and hard negatives, from graded similarity, from a teacher's vectors.

A record is a text and any number of second texts, each a sequence of its own behind its prompt, pooled as `annotate`
pools it. Of a text that is longer than a window the first window is read: what is learnt from are sentences and
passages, and one vector a window would make a long text count for many.

Letters: R records, V vectors, B of them of a micro-batch, T tokens, D width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.examples import Example
from pipelines.finetune.reading import lay_out, number_languages, read_portions
from pipelines.finetune.steps import MicroBatch
from pipelines.finetune.training_set import Portion, TrainingSet
from pipelines.finetune.vector_loss import VectorLoss, refuse
from xlmr_core.checkpoint import Checkpoint, EmbeddingSpec
from xlmr_core.encoder import Encoder
from xlmr_core.errors import InputError, TaskError
from xlmr_core.graph import Annotation, GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.graph.opened import OpenModels
from xlmr_core.heads import PoolingMode, PoolingSpec
from xlmr_core.tasks.embed import Embed
from xlmr_core.tasks.similarity import Similar
from xlmr_core.tasks.spans import WindowBatch
from xlmr_core.tokenization.encoding import bounds

# Names under which checkpoints keep the prompts of both sides; sentence-transformers looks for the same.
_QUERY, _DOCUMENTS = "query", ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class SentenceVectors:
    """Sentence vectors of a checkpoint that says how it pools.

    Attributes:
        plan: One annotation: similarity where records have second texts, else embedding.
        loss: What is made small.
        teacher: A model whose vectors are learnt; None for none.
    """

    plan: GraphPlan
    loss: VectorLoss
    teacher: str | None = None

    @classmethod
    def of(
        cls,
        spec: str,
        loss: VectorLoss,
        *,
        pairs: bool = True,
        teacher: str | None = None,
        opened: OpenModels | None = None,
    ) -> "SentenceVectors":
        """Settles prompts and pooling as the checkpoint has them.

        Args:
            spec: The checkpoint, which `embedding_settings` went into.
            loss: What is made small.
            pairs: Whether records have second texts.
            teacher: A model whose vectors are learnt.
            opened: What is open already.

        Raises:
            TaskError: The loss does not fit the model, or records without second texts.
        """
        opened = opened or OpenModels()
        prompts = (opened.checkpoint(spec).embedding or EmbeddingSpec()).prompts
        query = _QUERY if _QUERY in prompts else None
        document = next((name for name in _DOCUMENTS if name in prompts), None)
        options = {"task": "similarity", "query_prompt_name": query, "prompt_name": document}
        if not pairs:
            if loss.name != "teacher_mse":
                raise TaskError(f"loss={loss.name} compares texts, the records have no second texts; name their column")
            options = {"task": "embedding", "prompt_name": document}
        request = Request("vectors", spec, {name: value for name, value in options.items() if value is not None})
        plan = GraphPlan.resolve([request], on_long="truncate", pairs=pairs, opened=opened)
        return cls(plan, loss, teacher)

    @property
    def annotation(self) -> Annotation:
        """How texts are read."""
        return self.plan.annotations[0]

    @property
    def embed(self) -> Embed:
        """How vectors are made."""
        task = self.annotation.task
        assert isinstance(task, Embed | Similar)
        return task.embed if isinstance(task, Similar) else task

    @property
    def width(self) -> int:
        """Values of a vector, D."""
        return self.embed.width

    def vectors(self, encoder: Encoder, head: nn.Module, batch: MicroBatch) -> Tensor:
        """The vectors of all sequences of a micro-batch (B, D), float32, as `annotate` gives them."""
        windows = WindowBatch(batch.packed, self._prompts(batch))
        rows = windows.rows(self.annotation.task.reading.rows)
        hidden_TD = encoder(batch.packed, rows)
        pooled = self.embed.forward(head, hidden_TD, windows if rows is None else windows.single_tokens(rows))
        return self.embed.finish(head, pooled)

    def step_loss(self, parts: Sequence[TrainingSet], device: torch.device) -> Callable[[Tensor], Tensor]:
        """The loss of all vectors of a step (V, D), which come part after part."""
        splits = torch.from_numpy(bounds(np.concatenate([np.diff(part.records) for part in parts]))).to(device)
        targets = torch.from_numpy(np.concatenate([part.targets for part in parts])).to(device)
        return lambda vectors_VD: self.loss(vectors_VD, splits, targets)

    def _prompts(self, batch: MicroBatch) -> Tensor | None:
        """Tokens at the start of each sequence that pooling skips (B,); None where it skips none."""
        views, annotation = self.plan.views, self.annotation
        text = views[annotation.view].prompt_tokens
        second = text if annotation.second_view is None else views[annotation.second_view].prompt_tokens
        if self.embed.spec.pooling.include_prompt or not (text or second):
            return None
        tokens_B = torch.full((len(batch.packed.lengths),), second)
        tokens_B[batch.splits[:-1].cpu()] = text
        # `<s>` is no content either, where there is a prompt.
        return torch.where(tokens_B > 0, tokens_B + 1, 0).to(batch.packed.ids.device)

    def training_set(self, examples: Iterable[Example]) -> tuple[TrainingSet, dict[int, InputError]]:
        """Reads texts and second texts, and what they should be to each other.

        Args:
            examples: Checked already; gold values are a number for each second text.

        Returns:
            The set, and examples that cannot be learnt from, by number, each with its reason; they and empty texts are
            no part of the set. Targets are as `VectorLoss` takes them.

        Raises:
            InputError: None of the examples can be learnt from.
            TaskError: Gold values that the loss has no use for, with their places; settings that do not fit the model.
        """
        teach = None if self.teacher is None else Teacher(self.teacher)
        self.loss.check(self.width, None if teach is None else teach.width)
        problems: list[str] = []
        read = partial(self._read, Preprocessor(self.plan), teach, problems)
        try:
            return read_portions(examples, read, "window" if teach is None else "record")
        finally:
            # More telling than that there is nothing to learn from.
            refuse(problems)

    def _read(
        self,
        preprocess: Preprocessor,
        teach: "Teacher | None",
        problems: list[str],
        examples: Sequence[Example],
        languages: dict[str, int],
    ) -> tuple[Portion, dict[int, InputError]]:
        problems += self.loss.problems(examples)
        wanted = None if teach is None else teach([example.text for example in examples])
        untaught = [] if wanted is None else np.flatnonzero(np.isnan(wanted[:, 0])).tolist()
        laid = lay_out(self.plan, preprocess, examples, untaught)
        records = laid.records
        error = InputError("the teacher gives the text no vector, there is nothing to learn", code="no_vector")
        kept = [example for example, is_usable in zip(examples, laid.usable.tolist(), strict=True) if is_usable]
        portion = Portion(
            ids=laid.ids,
            lengths=records.length,
            restarts=np.zeros(len(records.length), dtype=np.int32),
            sequences=np.diff(records.item_splits),
            language=number_languages(kept, languages),
            targets=_graded(kept) if wanted is None else wanted[laid.usable],
        )
        return portion, dict.fromkeys((n for n in untaught if examples[n].text.strip()), error) | laid.refused


class Teacher:
    """A checkpoint whose vectors are learnt, loaded.

    Args:
        model: See `Checkpoint.open`; it says how it pools.
    """

    def __init__(self, model: str) -> None:
        opened = OpenModels()
        plan = GraphPlan.resolve([Request("vectors", model, {"task": "embedding"})], opened=opened)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._preprocess = Preprocessor(plan, opened=opened)
        self._graph = ModelGraph(plan, device=device, opened=opened)
        task = plan.annotations[0].task
        assert isinstance(task, Embed)
        self.width = task.width

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of a portion of texts (R, D), float32; those of texts that it cannot read are no numbers."""
        found = self._graph(self._preprocess(texts))
        vectors_RD = np.full((len(texts), self.width), np.nan, dtype=np.float32)
        vectors_RD[found.annotated] = np.asarray(found.columns["vectors"])
        return vectors_RD


def _graded(examples: Sequence[Example]) -> np.ndarray:
    """Gold value and number of each record's text and of its second texts (V, 2), float64; the text has no gold."""
    rows: list[tuple[float, int]] = []
    for example in examples:
        # What each task's examples hold is `examples.Gold`'s to say.
        gold: Any = example.gold
        rows.append((np.nan, text_number(example.text)))
        rows += [(value, text_number(text)) for value, text in zip(gold, example.second, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def text_number(text: str) -> int:
    """A number that only equal texts share, below 2^53, so that float64 holds it; blanks at the ends do not count."""
    return int.from_bytes(blake2b(text.strip().encode(), digest_size=8).digest(), "big") >> 11


def embedding_settings(
    checkpoint: Checkpoint | None,
    loss: VectorLoss,
    *,
    pooling: Sequence[PoolingMode] | None = None,
    normalize: bool | None = None,
    query_prompt: str | None = None,
    prompt: str | None = None,
) -> Mapping[str, Any]:
    """What the `xlmr.json` of a model that is trained for sentence vectors says.

    Args:
        checkpoint: The base model, or its head of the name; None for a fresh one.
        loss: What it is trained with.
        pooling: Overrides the checkpoint's; mean where that says nothing.
        normalize: Overrides whether vectors get unit length; where the checkpoint says nothing they do, unless the loss
            looks at lengths.
        query_prompt: Text put before every text, such as "query: ".
        prompt: Text put before every second text, such as "passage: ".

    Raises:
        TaskError: The checkpoint has modules behind pooling.
    """
    spec = None if checkpoint is None else checkpoint.embedding
    if spec is not None and spec.modules:
        kinds = ", ".join(module.kind for module in spec.modules)
        rule = "modules between pooling and Normalize cannot be trained yet; start from its encoder alone"
        raise TaskError(f"{checkpoint.spec if checkpoint else ''} has {kinds} behind pooling, {rule}")
    own = spec or EmbeddingSpec(PoolingSpec(), normalize=loss.compares_directions)
    settings: dict[str, Any] = {
        "pooling": list(pooling or own.pooling.modes),
        "include_prompt": own.pooling.include_prompt,
        "normalize": own.normalize if normalize is None else normalize,
        "similarity_fn_name": own.similarity or ("cosine" if loss.compares_directions else "dot"),
    }
    given = {_QUERY: query_prompt, _DOCUMENTS[0]: prompt}
    prompts = dict(own.prompts) | {name: text for name, text in given.items() if text is not None}
    optional = {"prompts": prompts, "default_prompt_name": own.default_prompt_name, "truncate_dim": own.truncate_dim}
    return settings | {name: value for name, value in optional.items() if value}
