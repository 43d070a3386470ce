"""What to run: named annotations, resolved by content so that equal tokenizers and encoders are used once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import TaskError, XLMRError
from xlmr_core.tasks.classify import Classify, ClassifyOptions
from xlmr_core.tasks.embed import Embed, EmbedOptions
from xlmr_core.tasks.options import parse_options
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.tag import Tag, TagOptions
from xlmr_core.tokenization import Encodings, OnLong, SpecialTokens, Tokenizer

Task = Classify | Embed | Tag

TASKS: Mapping[str, tuple[type[Task], type[Any]]] = {
    "sequence-classification": (Classify, ClassifyOptions),
    "token-classification": (Tag, TagOptions),
    "embedding": (Embed, EmbedOptions),
}

# What every driver says about a record besides its annotations.
RECORD_FIELDS = ("id", "status", "n_tokens", "n_tokens_used", "n_windows", "error")

# Raised whenever a change of this code changes results beyond rounding: a job started under another version
# must not be continued with this one.
RESULTS_VERSION = 2


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for: one annotation.

    Attributes:
        name: Names the output columns.
        model: Directory, `mini#head` or Hub id, see `Checkpoint.open`.
        options: Raw options; `task` overrides what the checkpoint says it is for.
    """

    name: str
    model: str
    options: Mapping[str, str] = field(default_factory=dict)

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
    """

    tokenizer_sha256: str
    model: str
    special: SpecialTokens
    prompt: str
    prompt_tokens: int
    side: Literal["text", "second"]
    offsets: bool


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
    def resolve(cls, requests: Sequence[Request], *, on_long: OnLong = "window", pairs: bool = False) -> "GraphPlan":
        """Opens every checkpoint, settles every option and hashes what will be computed.

        Args:
            requests: At least one, with distinct names.
            on_long: What to do with texts longer than a window.
            pairs: Whether records have second texts.

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
        hashed: dict[str, str] = {}
        for request in requests:
            try:
                annotations.append(_resolve(request, views, hashed, pairs))
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
                    "max_length": a.max_length,
                    "stride": a.stride,
                    **a.task.facts(),
                }
                for a in self.annotations
            ],
        }


def _resolve(request: Request, views: list[View], hashed: dict[str, str], pairs: bool) -> Annotation:
    """Settles one request; adds its views to `views` and its encoder's hash, by directory, when they are new."""
    where = f"task {request.name}={request.model}"
    checkpoint = Checkpoint.open(request.model)
    options = dict(request.options)
    kind = options.pop("task", None) or checkpoint.task
    if kind is None or kind not in TASKS:
        said = f"task={kind!r}" if kind else "the checkpoint does not say what it is for"
        raise TaskError(f"{where}: {said}; pass task= one of {', '.join(TASKS)}")
    task_type, options_type = TASKS[kind]
    parsed = parse_options(options_type, options, where=where)
    max_length = checkpoint.max_length if parsed.max_length is None else parsed.max_length
    if not 8 <= max_length <= checkpoint.max_length:
        raise TaskError(f"{where}: max_length={max_length}, the checkpoint takes 8 to {checkpoint.max_length} tokens")
    # A quarter keeps small windows moving; the default suits windows of 512.
    stride = min(parsed.stride, max_length // 4) if "stride" not in options else parsed.stride
    if not 0 <= stride <= max_length // 2:
        raise TaskError(f"{where}: stride={stride}, it must be between 0 and half of max_length ({max_length // 2})")
    task = task_type.bind(checkpoint, parsed, pairs=pairs)
    reading = task.reading
    if reading.reads_record_pairs and not pairs:
        raise TaskError(f"{where}: {kind} reads a second text of every record, there is none; name its column")
    tokenizer = Tokenizer.load(checkpoint.tokenizer_directory)
    _check_tokenizer(tokenizer, checkpoint, reading, where)
    directory = str(checkpoint.directory)
    hashed[directory] = hashed.get(directory) or checkpoint.encoder_sha256()
    second_view = None
    view = _view(views, tokenizer, checkpoint, reading.prompt, "text", reading.offsets)
    if reading.reads_record_pairs:
        prompt = reading.prompt if reading.layout == "apart" else ""
        second_view = _view(views, tokenizer, checkpoint, prompt, "second", False)
    return Annotation(
        name=request.name,
        model=checkpoint.resolved,
        kind=kind,
        task=task,
        view=view,
        second_view=second_view,
        fixed=tokenizer.encode(reading.fixed) if reading.fixed else None,
        max_length=max_length,
        stride=stride,
        encoder_sha256=hashed[directory],
        head_sha256=checkpoint.head_sha256(task.head),
        revision=checkpoint.revision,
    )


def _check_tokenizer(tokenizer: Tokenizer, checkpoint: Checkpoint, reading: Reading, where: str) -> None:
    if tokenizer.vocab_size > checkpoint.config.vocab_size:
        raise TaskError(
            f"{where}: its tokenizer gives ids up to {tokenizer.vocab_size - 1}, the embedding table has "
            f"{checkpoint.config.vocab_size} rows; the tokenizer belongs to another checkpoint"
        )
    if (reading.needs_mask or reading.hides_each_token) and tokenizer.special.mask is None:
        raise TaskError(f"{where}: its tokenizer has no mask token, this task needs one; use another checkpoint")


def _view(
    views: list[View],
    tokenizer: Tokenizer,
    checkpoint: Checkpoint,
    prompt: str,
    side: Literal["text", "second"],
    offsets: bool,
) -> int:
    """Index of the view that gives these tokens, made when there is none; asks it for offsets when needed."""
    for index, view in enumerate(views):
        if (view.tokenizer_sha256, view.prompt, view.side) == (tokenizer.sha256, prompt, side):
            views[index] = replace(view, offsets=view.offsets or offsets)
            return index
    prompt_tokens = len(tokenizer.encode([prompt]).ids)
    views.append(View(tokenizer.sha256, checkpoint.resolved, tokenizer.special, prompt, prompt_tokens, side, offsets))
    return len(views) - 1
