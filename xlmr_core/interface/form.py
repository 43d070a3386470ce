"""What a form is: how one task's inputs and answers look to a user."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.graph.plan import TASKS
from xlmr_core.tokenization import Tokenizer


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a call asks about.

    Attributes:
        texts: Texts.
        pairs: Second texts of each; None where the task reads none.
        single: What came where it is no list of inputs: a text or a dict.
    """

    texts: list[str]
    pairs: list[list[str]] | None
    single: Literal["text", "dict"] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the graph says about one input.

    Attributes:
        text: The text.
        pairs: Its second texts.
        columns: Values of the output columns, by their name behind the task's.
        task: The task, bound to the checkpoint.
        tokenizer: Of the checkpoint.
    """

    text: str
    pairs: list[str]
    columns: Mapping[str, Any]
    task: Any
    tokenizer: Tokenizer


Read = Callable[[tuple[Any, ...], dict[str, Any]], Inputs]


@dataclass(frozen=True, slots=True)
class Form:
    """One task to a user.

    Attributes:
        kind: Key of `graph.plan.TASKS`.
        read: Inputs of a call; may take parameters that are inputs by name, such as `question=`.
        write: An answer, with the parameters of the call.
        options: Option of the task for each parameter.
        taken: Parameters that `write` reads itself, and what checks a value, text too; it raises ValueError.
        inputs: Parameters that are inputs by name; `read` takes them. The first one is the second text or texts.
        defaults: Options that differ from the task's own defaults.
        certain: Options under which a head that the task cannot read is all that can be wrong with it; None where a
            task reads heads of any shape.
        subject: What an empty input is called.
        lists_text: Whether the answer to a single text is a list of one.
        bares_one: Whether the answer to a list of one is bare; odd like the other, and what users' code expects.
    """

    kind: str
    read: Read
    write: Callable[[Answer, Mapping[str, Any]], Any]
    options: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, Callable[[object], Any]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    certain: Mapping[str, Any] | None = None
    subject: str = "the text"
    lists_text: bool = False
    bares_one: bool = False

    def check(self, checkpoint: Checkpoint) -> None:
        """Refuses a checkpoint without the task's head, or with one that it cannot read; looks at shapes only.

        Raises:
            CheckpointError: There is no such head.
            TaskError: It has another number of outputs than the task reads.
        """
        task, options = TASKS[self.kind]
        # What comes after pooling is optional.
        if task.head != "embedding":
            checkpoint.num_outputs(task.head)
        if self.certain is not None:
            task.bind(checkpoint, options(**self.certain))
