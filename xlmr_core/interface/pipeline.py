"""`pipeline(task, model)`: a few texts at once and in this process, through the same graph that jobs run.

Names of tasks, parameters and keys of the answers are those of transformers' pipelines (5.23; for question answering
4.56.2, the last with that pipeline). Two things differ on purpose: a long text is read in windows instead of being cut
or raising, and an input that cannot be answered raises an error that names it. Entities differ where transformers' are
known to be wrong, see `xlmr_core.tasks.entities`. Inputs are texts, dicts, lists, tuples or generators of them; a
generator is read to its end.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

import torch

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.errors import InputError, TaskError, XLMRError
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request
from xlmr_core.graph.model import Dtype
from xlmr_core.graph.opened import OpenModels
from xlmr_core.interface.form import Answer, Form, Inputs
from xlmr_core.interface.forms import ALIASES, FORMS, form_of, parameter_names
from xlmr_core.tasks.columns import to_list
from xlmr_core.tokenization import OnLong, text_problem

_NAME = "answer"
# Distinct sets of options whose plans are kept.
_PLANS = 8


class Pipeline:
    """A checkpoint and a task, ready to be called; made by `pipeline`.

    Attributes:
        task: Name of the task, as transformers calls it.
        model: The checkpoint, as it was named.
    """

    def __init__(
        self,
        form: Form,
        model: str,
        *,
        dtype: Dtype,
        device: str,
        on_long: OnLong,
        parameters: Mapping[str, Any],
        task: str,
        opened: OpenModels,
    ) -> None:
        self.task, self.model = task, model
        self._form, self._parameters = form, dict(parameters)
        self._refuse_unknown(parameters, {*form.options, *form.taken, *form.inputs})
        self._dtype: Dtype = dtype
        self._device, self._on_long = device, on_long
        self._opened = opened
        self._graphs: dict[str, tuple[Preprocessor, ModelGraph]] = {}

    def __call__(self, *inputs: Any, **parameters: Any) -> Any:
        """Answers one input, or a list of them.

        Args:
            inputs: What the task reads: texts, or dicts; see `xlmr_core.interface.forms`.
            parameters: Of this call, such as `top_k`; they override those given to `pipeline`.

        Returns:
            One answer for one input, a list for a list.

        Raises:
            TaskError: Unknown parameters, or some that do not fit the checkpoint.
            InputError: Inputs that cannot be answered, each by its number.
        """
        settings = self._parameters | parameters
        read = self._form.read(inputs, settings)
        self._refuse_unknown(settings, {*self._form.options, *self._form.taken})
        for key in settings.keys() & self._form.taken.keys():
            settings[key] = self._taken(key, settings[key])
        options = {self._form.options[key]: value for key, value in settings.items() if key in self._form.options}
        options = {key: value for key, value in options.items() if value is not None}
        answers = list(self._answers(read, {**self._form.defaults, **options}))
        written = [self._form.write(answer, settings) for answer in answers]
        if read.single is None:
            return written[0] if self._form.bares_one and len(written) == 1 else written
        # Odd, and what everyone's code expects of text classification without top_k.
        as_list = self._form.lists_text and read.single == "text" and isinstance(written[0], dict)
        return written if as_list else written[0]

    def _refuse_unknown(self, parameters: Mapping[str, Any], taken: set[str]) -> None:
        if unknown := sorted(parameters.keys() - taken):
            known = ", ".join(sorted(parameter_names(self.task)))
            raise TaskError(f"{self.task}: unknown parameter {', '.join(unknown)}; known are {known}")

    def _taken(self, key: str, value: object) -> object:
        """A parameter that this side reads, as the form wants it; None stays None."""
        try:
            return None if value is None else self._form.taken[key](value)
        except ValueError:
            raise TaskError(f"{self.task}: {key}={value!r}, it must be a whole number from 1 on") from None

    def _answers(self, read: Inputs, options: Mapping[str, Any]) -> Iterator[Answer]:
        """Runs the graph over inputs that are all usable."""
        _refuse(self._unusable(read))
        preprocess, graph = self._graph(options, pairs=read.pairs is not None)
        encoded = preprocess(read.texts, read.pairs)
        result = graph(encoded)
        wrong = {row: self._reason(error) for row, error in result.failed.items()}
        empty = [row for row in range(len(read.texts)) if not result.annotated[row] and row not in wrong]
        _refuse(wrong | dict.fromkeys(empty, f"{self._form.subject} is empty, there must be something to read"))
        columns = {name.removeprefix(_NAME).lstrip("_"): to_list(column) for name, column in result.columns.items()}
        (annotation,) = graph.plan.annotations
        tokenizer = self._opened.tokenizer(self._opened.checkpoint(annotation.model))
        for row, text in enumerate(read.texts):
            yield Answer(
                text=text,
                pairs=read.pairs[row] if read.pairs is not None else [],
                columns={name: values[row] for name, values in columns.items()},
                task=annotation.task,
                tokenizer=tokenizer,
            )

    def _unusable(self, read: Inputs) -> dict[int, str]:
        """Inputs with a text that is none."""
        named = [(self._form.subject, row, text) for row, text in enumerate(read.texts)]
        for row, pairs in enumerate(read.pairs or []):
            named += [(self._form.inputs[0], row, text) for text in pairs]
        return {row: f"{name} cannot be read ({code})" for name, row, text in named if (code := text_problem(text))}

    def _reason(self, error: InputError) -> str:
        """Why an input could not be answered; what is wrong with its second texts is said of them by name."""
        of_second = error.code.endswith(("_pair", "_pairs")) or error.code in ("pair_too_long", "question_too_long")
        said = self._as_typed(error)
        return f"{self._form.inputs[0]}: {said}" if of_second and self._form.inputs else said

    def _as_typed(self, error: XLMRError) -> str:
        """What is wrong, with options called as this task's parameters are, and without the name of the annotation."""
        names = {option: parameter for parameter, option in self._form.options.items() if option != parameter}
        # A name of one word is one only before its value: "activation" may be just a word.
        alike = "|".join(option if "_" in option else f"{option}(?==)" for option in names)
        said = str(error).replace(f"task {_NAME}=", "")
        return re.sub(rf"(?<![\w/.-])({alike})(?![\w/.-])", lambda match: names[match[0]], said) if names else said

    def _graph(self, options: Mapping[str, Any], *, pairs: bool) -> tuple[Preprocessor, ModelGraph]:
        """The graph under these options; encoders and heads are loaded once whatever options come."""
        key = json.dumps([sorted(options.items()), pairs], default=str)
        if key not in self._graphs:
            request = Request(_NAME, self.model, {"task": self._form.kind, **options})
            try:
                plan = GraphPlan.resolve([request], on_long=self._on_long, pairs=pairs, opened=self._opened)
            except TaskError as error:
                raise TaskError(self._as_typed(error)) from None
            loaded = next((graph for _, graph in self._graphs.values()), None)
            graph = ModelGraph(plan, device=self._device, dtype=self._dtype, opened=self._opened, loaded=loaded)
            if len(self._graphs) >= _PLANS:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[key] = Preprocessor(plan, opened=self._opened), graph
        return self._graphs[key]


def pipeline(
    task: str | None = None,
    model: str | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: int | str | torch.device | None = None,
    on_long: str = "window",
    **parameters: Any,
) -> Pipeline:
    """Loads a checkpoint for a task.

    Args:
        task: Such as "fill-mask", "text-classification", "token-classification", "question-answering"; default: what
            the checkpoint says it is for.
        model: Directory, `mini#head` or Hub id; default: `mini#language`.
        dtype: "float32" (default), "bfloat16", on a GPU also "float16"; or the torch type.
        device: "cpu" (default), "cuda", "cuda:1", or the number of a GPU; -1 is the CPU.
        on_long: Longer texts are read in windows, cut as transformers' pipelines do ("truncate"), or refused ("error").
        parameters: Parameters of every call, such as `top_k=3`.

    Raises:
        TaskError: An unknown task, type, device, `on_long` or parameter, or a head that the task cannot read.
        CheckpointError: The checkpoint cannot be found or used.
    """
    model = model or "mini#language"
    place = _device(device)
    opened = OpenModels()
    kind = task or _task_of(opened.checkpoint(model))
    form = form_of(kind)
    if form is None:
        raise TaskError(f"task {kind!r}, known are {', '.join(sorted({*FORMS, *ALIASES}))}")
    if on_long not in get_args(OnLong):
        raise TaskError(f"on_long {on_long!r}, it must be {', '.join(get_args(OnLong))}")
    settled = _dtype(dtype, place)
    # A wrong name or a missing head is said now, not at the first text.
    form.check(opened.checkpoint(model))
    return Pipeline(
        form,
        model,
        dtype=settled,
        device=place,
        on_long=cast(OnLong, on_long),
        parameters=parameters,
        task=kind,
        opened=opened,
    )


def _task_of(checkpoint: Checkpoint) -> str:
    name = next((name for name, form in FORMS.items() if form.kind == checkpoint.task), None)
    if name is None:
        raise TaskError(f"{checkpoint.spec} does not say what it is for; pass task= one of {', '.join(FORMS)}")
    return name


def _dtype(dtype: torch.dtype | str | None, device: str) -> Dtype:
    name = str(dtype or "float32").removeprefix("torch.")
    match name:
        case "float32" | "bfloat16":
            return name
        case "float16" if device != "cpu":
            return name
        case "float16":
            raise TaskError("dtype float16 on a CPU, processors compute in float32 or bfloat16; use dtype=bfloat16")
        case _:
            raise TaskError(f"dtype {name!r}, it must be float32, bfloat16 or float16")


def _device(device: int | str | torch.device | None) -> str:
    if device is None or device == -1:
        return "cpu"
    name = f"cuda:{device}" if isinstance(device, int) else str(device)
    if name != "cpu" and not name.startswith("cuda"):
        raise TaskError(f"device {name!r}, it must be cpu, cuda or the number of a GPU")
    if name != "cpu" and not torch.cuda.is_available():
        raise TaskError(f"device {name!r}, no GPU that torch can use is here; leave device= out")
    return name


def _refuse(problems: Mapping[int, str]) -> None:
    if problems:
        lines = "; ".join(f"input {row}: {problem}" for row, problem in sorted(problems.items())[:20])
        raise InputError(lines, code="bad_input")
