"""What a model directory may be for, and which head serves that."""

from collections.abc import Iterable, Mapping
from typing import Literal

from xlmr_core.checkpoint.keys import HeadKind

TaskKind = Literal[
    "sequence-classification",
    "token-classification",
    "embedding",
    "fill-mask",
    "question-answering",
    "multiple-choice",
    "zero-shot-classification",
    "rerank",
    "similarity",
    "pseudo-perplexity",
    "sparse-embedding",
    "multi-vector-embedding",
    "causal-lm",
]

# None: pooling and the modules behind it.
HEAD_OF_TASK: Mapping[TaskKind, HeadKind | None] = {
    "sequence-classification": "sequence-classification",
    "token-classification": "token-classification",
    "embedding": None,
    "fill-mask": "masked-lm",
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
    "zero-shot-classification": "sequence-classification",
    "rerank": "sequence-classification",
    "similarity": None,
    "pseudo-perplexity": "masked-lm",
    "sparse-embedding": "sparse",
    "multi-vector-embedding": "multi-vector",
    "causal-lm": "masked-lm",
}

_SUFFIXES: Mapping[str, TaskKind] = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForCausalLM": "causal-lm",
    "BertLMHeadModel": "causal-lm",
}


def task_of_classes(class_names: Iterable[str]) -> TaskKind | None:
    """What the class is for that a checkpoint was saved from; None for a bare encoder."""
    found = (task for name in class_names for suffix, task in _SUFFIXES.items() if name.endswith(suffix))
    return next(found, None)


def class_of_task(task: TaskKind | None, model_type: str) -> str:
    """The class of transformers that opens an encoder with the head of a task; the bare encoder's where it has none."""
    if model_type == "bert" and task == "causal-lm":
        return "BertLMHeadModel"
    head = HEAD_OF_TASK[task] if task else None
    # A task without a class of its own has that of the first task with its head.
    suffixes = [suffix for suffix, own in _SUFFIXES.items() if own == task]
    suffixes += [suffix for suffix, other in _SUFFIXES.items() if head is not None and HEAD_OF_TASK[other] == head]
    return ("Bert" if model_type == "bert" else "XLMRoberta") + (suffixes[0] if suffixes else "Model")
