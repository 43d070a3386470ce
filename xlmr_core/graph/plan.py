"""What to run: named annotations, resolved by content so that equal tokenizers and encoders are used once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import TaskError, XLMRError
from xlmr_core.graph.opened import OpenModels
from xlmr_core.tasks.answer import Answer, AnswerOptions
from xlmr_core.tasks.choice import Choice, ChoiceOptions
from xlmr_core.tasks.classify import Classify, ClassifyOptions
from xlmr_core.tasks.embed import Embed, EmbedOptions
from xlmr_core.tasks.fill_mask import FillMask, FillMaskOptions
from xlmr_core.tasks.multi_vector import MultiVector, MultiVectorOptions
from xlmr_core.tasks.options import parse_options
from xlmr_core.tasks.perplexity import Perplexity, PerplexityOptions
from xlmr_core.tasks.reading import Reading, Words
from xlmr_core.tasks.rerank import Rerank, RerankOptions
from xlmr_core.tasks.similarity import Similar, SimilarityOptions
from xlmr_core.tasks.sparse import Sparse, SparseOptions
from xlmr_core.tasks.tag import Tag, TagOptions
from xlmr_core.tasks.zero_shot import ZeroShot, ZeroShotOptions
from xlmr_core.tokenization import Encodings, OnLong, SpecialTokens, Tokenizer
from xlmr_core.tokenization.units import Unit
from xlmr_core.tokenization.windows import FRAME_PAIR

Task = (
    Answer
    | Choice
    | Classify
    | Embed
    | FillMask
    | MultiVector
    | Perplexity
    | Rerank
    | Similar
    | Sparse
    | Tag
    | ZeroShot
)

TASKS: Mapping[str, tuple[type[Task], type[Any]]] = {
    "sequence-classification": (Classify, ClassifyOptions),
    "token-classification": (Tag, TagOptions),
    "zero-shot-classification": (ZeroShot, ZeroShotOptions),
    "multiple-choice": (Choice, ChoiceOptions),
    "rerank": (Rerank, RerankOptions),
    "similarity": (Similar, SimilarityOptions),
    "embedding": (Embed, EmbedOptions),
    "sparse-embedding": (Sparse, SparseOptions),
    "multi-vector-embedding": (MultiVector, MultiVectorOptions),
    "question-answering": (Answer, AnswerOptions),
    "fill-mask": (FillMask, FillMaskOptions),
    "pseudo-perplexity": (Perplexity, PerplexityOptions),
}

# What every driver says about a record besides its annotations.
RECORD_FIELDS = ("id", "status", "n_tokens", "n_tokens_used", "n_windows", "error")

# Raised whenever a change of this code changes results beyond rounding: a job started under another version
# must not be continued with this one.
RESULTS_VERSION = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for: one annotation.

    Attributes:
        name: Names the output columns.
        model: Directory, `mini#head` or Hub id, see `Checkpoint.open`.
        options: Options, as typed (text) or as values; `task` overrides what the checkpoint says it is for.
    """

    name: str
    model: str
    options: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Request":
        r"""Reads `NAME=MODEL[,key=value...]`; a comma inside a value is written `\,`.

        Raises:
            TaskError: The text has another form.
        """
        head, *pairs = (part.replace("\\,", ",") for part in re.split(r"(?<!\\),", text))
        name, equals, model = head.partition("=")
        options = dict(pair.partition("=")[::2] for pair in pairs)
        if not equals or not model or not all(options) or any("=" not in pair for pair in pairs):
            raise TaskError(f"task {text!r}, it must look like NAME=MODEL[,key=value...]; for example topic=mini#topic")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name):
            raise TaskError(f"task name {name!r}, it must be letters, digits and _; it becomes part of column names")
        return cls(name, model, options)


@dataclass(frozen=True, slots=True)
class View:
    """One way of tokenising the records; shared by all annotations that want the same.

    Attributes:
        tokenizer_sha256: Content of the tokenizer.
        model: Resolved name of a checkpoint that has it.
        special: Ids of the tokens that frame a window.
        prompt: Text put before every text.
        prompt_tokens: Tokens of the prompt.
        side: Whether these are the records' texts or their second texts.
        offsets: Whether offsets are needed.
        words: What a word is, where offsets are needed.
        unit: What offsets count.
    """

    tokenizer_sha256: str
    model: str
    special: SpecialTokens
    prompt: str
    prompt_tokens: int
    side: Literal["text", "second"]
    offsets: bool
    words: Words = "blanks"
    unit: Unit = "codepoint"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One resolved annotation.

    Attributes:
        name: Names the output columns.
        model: The checkpoint, by its resolved name.
        kind: Key of `TASKS`.
        task: Labels, activation and options, settled.
        view: The texts: index into `GraphPlan.views`.
        second_view: The records' second texts, likewise; None where they are not read.
        fixed: Second texts that are the same for every record; None where there are none.
        max_length: Tokens of a window, special tokens included.
        stride: Tokens that neighbouring windows share.
        encoder_sha256: Content of the encoder.
        head_sha256: Content of the head.
        revision: Commit of a Hub checkpoint.
    """

    name: str
    model: str
    kind: str
    task: Task
    view: int
    second_view: int | None
    fixed: Encodings | None
    max_length: int
    stride: int
    encoder_sha256: str
    head_sha256: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """Everything a worker needs to know, without weights.

    Attributes:
        annotations: In the user's order.
        views: Distinct tokenisations.
        on_long: What to do with texts longer than a window.
    """

    annotations: tuple[Annotation, ...]
    views: tuple[View, ...]
    on_long: OnLong

    @classmethod
    def resolve(
        cls,
        requests: Sequence[Request],
        *,
        on_long: OnLong = "window",
        pairs: bool = False,
        opened: OpenModels | None = None,
    ) -> "GraphPlan":
        """Opens every checkpoint, settles every option and hashes what will be computed.

        Args:
            requests: At least one, with distinct names.
            on_long: What to do with texts longer than a window.
            pairs: Whether records have second texts.
            opened: What is open already, and gets what is opened now.

        Raises:
            XLMRError: All problems of all requests at once.
        """
        problems = [] if requests else ["no task was given; pass at least one, for example language=mini#language"]
        names = [request.name for request in requests]
        problems += [
            f"task name {name!r} was given twice, names must differ"
            for name in {n for n in names if names.count(n) > 1}
        ]
        annotations: list[Annotation] = []
        views: list[View] = []
        opened = opened or OpenModels()
        for request in requests:
            try:
                annotations.append(_resolve(request, views, opened, pairs))
            except XLMRError as error:
                problems.append(str(error))
        columns = [field.name for annotation in annotations for field in annotation.task.fields(annotation.name)]
        problems += [
            f"two tasks write the column {name!r}, rename one"
            for name in sorted({c for c in columns if columns.count(c) > 1})
        ]
        problems += [
            f"a task writes the column {name!r}, which every record has anyway; rename the task"
            for name in sorted(set(columns) & set(RECORD_FIELDS))
        ]
        if problems:
            raise TaskError("\n".join(problems))
        return cls(tuple(annotations), tuple(views), on_long)

    def fingerprint(self) -> dict[str, Any]:
        """Identity of the computation as plain JSON: same fingerprint, same results within rounding."""
        return {
            "results_version": RESULTS_VERSION,
            "on_long": self.on_long,
            "annotations": [
                {
                    "name": a.name,
                    "task": a.kind,
                    "encoder": a.encoder_sha256,
                    "head": a.head_sha256,
                    "tokenizer": self.views[a.view].tokenizer_sha256,
                    "prompt": self.views[a.view].prompt,
                    "layout": a.task.reading.layout,
                    "fixed": list(a.task.reading.fixed),
                    "offsets": a.task.reading.unit,
                    "max_length": a.max_length,
                    "stride": a.stride,
                    **a.task.facts(),
                }
                for a in self.annotations
            ],
        }


def _resolve(request: Request, views: list[View], opened: OpenModels, pairs: bool) -> Annotation:
    """Settles one request; adds its views to `views` when they are new."""
    where = f"task {request.name}={request.model}"
    checkpoint = opened.checkpoint(request.model)
    options = dict(request.options)
    kind = str(options.pop("task", None) or checkpoint.task or "")
    if checkpoint.config.is_decoder:
        rule = "tasks read a text from both sides; choose another, or set it to false if the model was trained so"
        raise TaskError(f"{where}: it is a causal language model (is_decoder true in config.json), {rule}")
    if kind not in TASKS:
        said = f"task={kind!r}" if kind else "the checkpoint does not say what it is for"
        raise TaskError(f"{where}: {said}; pass task= one of {', '.join(TASKS)}")
    task_type, options_type = TASKS[kind]
    parsed = parse_options(options_type, options, where=where)
    task = task_type.bind(checkpoint, parsed, pairs=pairs)
    reading = task.reading
    max_length, stride = _window_size(parsed, options, checkpoint, reading, where)
    if reading.reads_record_pairs and not pairs:
        raise TaskError(f"{where}: {kind} reads a second text of every record, there is none; name its column")
    tokenizer = opened.tokenizer(checkpoint)
    _check_tokenizer(tokenizer, checkpoint, reading, where)
    second_view = None
    view = _view(views, tokenizer, checkpoint, reading, "text")
    if reading.reads_record_pairs:
        second_view = _view(views, tokenizer, checkpoint, reading, "second")
    return Annotation(
        name=request.name,
        model=checkpoint.resolved,
        kind=kind,
        task=task,
        view=view,
        second_view=second_view,
        fixed=_fixed(tokenizer, reading, max_length, where) if reading.fixed else None,
        max_length=max_length,
        stride=stride,
        encoder_sha256=opened.encoder_sha256(checkpoint),
        head_sha256=checkpoint.head_sha256(task.head),
        revision=checkpoint.revision,
    )


def _window_size(
    parsed: Any, options: Mapping[str, object], checkpoint: Checkpoint, reading: Reading, where: str
) -> tuple[int, int]:
    """Tokens of a window and of the overlap: what was typed, else the task's default as far as it fits."""
    limit = checkpoint.max_length
    max_length = limit if parsed.max_length is None else parsed.max_length
    if "max_length" not in options:
        max_length = min(max_length, limit)
    if not 8 <= max_length <= limit:
        raise TaskError(f"{where}: max_length={max_length}, the checkpoint takes 8 to {limit} tokens")
    half = max_length // 2
    if parsed.stride is None:
        # As transformers' old pipeline had it; a window must move on all the same.
        return max_length, min(half, 128, max_length - FRAME_PAIR - 1)
    # A quarter keeps small windows moving; the default suits windows of 512.
    stride = min(parsed.stride, max_length // 4) if "stride" not in options else parsed.stride
    if reading.layout == "question":
        # How much room a question leaves is known with the records; there the overlap is held in bounds.
        most, rule = max_length - FRAME_PAIR - 1, f"max_length without the frame of a window ({max_length - 5})"
    else:
        most, rule = half, f"half of max_length ({half})"
    if not 0 <= stride <= most:
        raise TaskError(f"{where}: stride={stride}, it must be between 0 and {rule}")
    return max_length, stride


def _fixed(tokenizer: Tokenizer, reading: Reading, max_length: int, where: str) -> Encodings:
    """The tokens of fixed second texts, which must leave room for the record's own."""
    fixed = tokenizer.encode(reading.fixed)
    longest, room = int(fixed.lengths.max()), max_length - FRAME_PAIR - 1
    limit = room if reading.longest_second is None else min(reading.longest_second, room)
    if longest > limit:
        what = "the question" if reading.layout == "question" else "a text that goes with every record"
        raise TaskError(f"{where}: {what} has {longest} tokens, it may have at most {limit}; shorten it")
    return fixed


def _check_tokenizer(tokenizer: Tokenizer, checkpoint: Checkpoint, reading: Reading, where: str) -> None:
    if tokenizer.vocab_size > checkpoint.config.vocab_size:
        raise TaskError(
            f"{where}: its tokenizer gives ids up to {tokenizer.vocab_size - 1}, the embedding table has "
            f"{checkpoint.config.vocab_size} rows; the tokenizer belongs to another checkpoint"
        )
    if (reading.needs_mask or reading.hides_each_token) and tokenizer.special.mask is None:
        raise TaskError(f"{where}: its tokenizer has no mask token, this task needs one; use another checkpoint")


def _view(
    views: list[View], tokenizer: Tokenizer, checkpoint: Checkpoint, reading: Reading, side: Literal["text", "second"]
) -> int:
    """Index of the view that gives these tokens, made when there is none; asks it for offsets when needed."""
    prompt = reading.prompt if side == "text" else reading.second_prompt
    offsets = reading.offsets and side == "text"
    for index, view in enumerate(views):
        alike = (view.tokenizer_sha256, view.prompt, view.side) == (tokenizer.sha256, prompt, side)
        if alike and not offsets:
            return index
        words = reading.words if view.words == "none" or not view.offsets else view.words
        if alike and (not view.offsets or view.unit == reading.unit) and reading.words in (words, "none"):
            views[index] = replace(view, offsets=True, words=words, unit=reading.unit)
            return index
    prompt_tokens = len(tokenizer.encode([prompt]).ids)
    views.append(
        View(
            tokenizer_sha256=tokenizer.sha256,
            model=checkpoint.resolved,
            special=tokenizer.special,
            prompt=prompt,
            prompt_tokens=prompt_tokens,
            side=side,
            offsets=offsets,
            words=reading.words,
            unit=reading.unit,
        )
    )
    return len(views) - 1
