"""Writing a model directory that this package and `transformers` both open."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.embedding import EmbeddingSpec
from xlmr_core.checkpoint.keys import LAST_MODULE, HeadKind, decoder_file_names, encoder_file_names, head_file_names
from xlmr_core.checkpoint.purpose import HEAD_OF_TASK, TaskKind, class_of_head
from xlmr_core.checkpoint.task_heads import HEAD_CLASSES, LABELLED
from xlmr_core.config import ProblemType
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import Head, MaskedLMHead, SequenceHead, TokenHead


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head to write.

    Attributes:
        module: Its weights; None for sentence vectors, which are pooling alone.
        labels: Names of its outputs, in order; classification only.
        problem_type: What a sequence classification head predicts.
        settings: What its `xlmr.json` says besides the task, such as `max_length` or `pooling`.
        task: What it is for; default: what a module of its class is for most often.
    """

    module: Head | None
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: TaskKind | None = None

    @property
    def purpose(self) -> TaskKind:
        """What it is for."""
        if self.task is not None:
            return self.task
        match self.module:
            case SequenceHead():
                return "sequence-classification"
            case TokenHead():
                return "token-classification"
            case MaskedLMHead():
                return "fill-mask"
            case None:
                return "embedding"

    @property
    def kind(self) -> HeadKind | None:
        """Which head it is; None for sentence vectors."""
        return HEAD_OF_TASK[self.purpose] if self.module else None

    @property
    def num_outputs(self) -> int:
        """Outputs; none for sentence vectors."""
        if self.module is None or self.kind is None:
            return 0
        return self.module.get_parameter(f"{LAST_MODULE[self.kind]}.bias").shape[0]


def write_model_directory(
    directory: Path,
    encoder: Encoder,
    *,
    tokenizer: Path,
    head: TrainedHead | None = None,
    heads: Mapping[str, TrainedHead] | None = None,
    settings: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes encoder, tokenizer files, config, heads and `xlmr.json`; it appears whole or not at all.

    Args:
        directory: Where to; must not exist yet or be empty.
        encoder: Not prepacked: prepacked weights are in another layout and cannot be written.
        tokenizer: A directory whose tokenizer files are copied.
        head: The directory's own head, beside the encoder as `transformers` has it.
        heads: Further heads, each in `heads/NAME` and opened as `DIR#NAME`.
        settings: What `xlmr.json` says for the whole directory.
        dtype: Type of the stored weights.

    Raises:
        CheckpointError: The target is occupied, the tokenizer is missing, or labels do not fit a head.
    """
    problems = _problems(directory, tokenizer, {"": head, **(heads or {})})
    if problems:
        raise CheckpointError(f"{directory} cannot be written: " + "; ".join(problems))
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays on one file system.
    draft = Path(mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _write_root(draft, encoder, head, settings or {}, dtype)
        for name, extra in (heads or {}).items():
            _write_head(draft / layout.HEADS / name, encoder, extra, dtype)
        for path in (tokenizer / name for name in layout.TOKENIZER):
            if path.is_file():
                shutil.copyfile(path, draft / path.name)
        _sync(draft)
        draft.chmod(0o755)
        draft.rename(directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _problems(directory: Path, tokenizer: Path, heads: Mapping[str, TrainedHead | None]) -> list[str]:
    problems = []
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        problems.append("it exists and is not empty, nothing is ever overwritten; choose another or delete it")
    if not any((tokenizer / name).is_file() for name in layout.TOKENIZER_KINDS):
        problems.append(f"{tokenizer} has no tokenizer files, a model directory needs them; pass the base model's")
    for name, head in heads.items():
        where = f"head {name!r}" if name else "its head"
        if name and Path(name).name != name:
            problems.append(f"{where}, the name must be a plain file name")
        if head and head.module and head.kind and not isinstance(head.module, HEAD_CLASSES[head.kind]):
            problems.append(f"{where} is for {head.purpose}, a {type(head.module).__name__} does not serve that")
        elif head and head.labels and len(head.labels) != head.num_outputs:
            problems.append(f"{where} has {len(head.labels)} labels, it must have {head.num_outputs}")
        if head and head.module is None and EmbeddingSpec.from_settings(head.settings, source=where) is None:
            problems.append(f"{where} has neither weights nor pooling, give it one of them")
    return problems


def _write_root(
    draft: Path, encoder: Encoder, head: TrainedHead | None, settings: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Config, weights and settings of the directory itself."""
    config = _config(encoder, head, dtype)
    # A bare encoder has no prefix; beside a head it has one.
    is_bare = config["architectures"][0].endswith("Model")
    prefix = "" if is_bare else {"bert": "bert."}.get(config["model_type"], "roberta.")
    tensors = _file_tensors(encoder, lambda name: tuple(prefix + part for part in encoder_file_names(name)), dtype)
    for name, value in (_head_tensors(head, encoder, dtype) if head else {}).items():
        tensors[prefix + name if name.startswith("pooler.") else name] = value
    _save(draft, tensors, config, {**settings, **_head_settings(head)})


def _write_head(folder: Path, encoder: Encoder, head: TrainedHead, dtype: torch.dtype) -> None:
    """Config, weights and settings of one of several heads."""
    folder.mkdir(parents=True)
    tensors = _head_tensors(head, encoder, dtype)
    whole = _config(encoder, head, dtype)
    labels: dict[str, Any] = {
        key: whole[key] for key in ("id2label", "label2id", "problem_type", "architectures") if key in whole
    }
    _save(folder, tensors, labels, _head_settings(head))


def _head_tensors(head: TrainedHead, encoder: Encoder, dtype: torch.dtype) -> dict[str, Tensor]:
    """A head's parameters; a masked-LM head that uses the embedding table does not repeat it."""
    kind, model_type = head.kind, encoder.config.model_type
    if head.module is None or kind is None:
        return {}
    tensors = _file_tensors(head.module, lambda name: head_file_names(kind, name, model_type), dtype)
    if kind == "masked-lm":
        matrix, bias, usual_bias = decoder_file_names(model_type)
        tensors[usual_bias] = tensors[bias].clone()
        if _is_tied(head, encoder):
            del tensors[matrix], tensors[bias]
    return tensors


def _is_tied(head: TrainedHead | None, encoder: Encoder) -> bool:
    """Whether a masked-LM head projects with the very embedding table; true where there is none."""
    if head is None or not isinstance(head.module, MaskedLMHead):
        return True
    return torch.equal(head.module.decoder.weight, encoder.embeddings.word_embeddings.weight)


def _config(encoder: Encoder, head: TrainedHead | None, dtype: torch.dtype) -> dict[str, Any]:
    kind = head.kind if head else None
    # All but BERT's are one architecture under several names.
    model_type = "bert" if encoder.config.model_type == "bert" else "xlm-roberta"
    labels = head.labels if head else ()
    if head and kind in LABELLED and not labels:
        labels = tuple(f"LABEL_{index}" for index in range(head.num_outputs))
    config = replace(
        encoder.config,
        model_type=model_type,
        architectures=(class_of_head(kind, model_type),),
        id2label=labels,
        problem_type=head.problem_type if head else None,
    )
    stale = ("torch_dtype", "num_labels", "_name_or_path")
    kept = {key: value for key, value in config.to_dict().items() if key not in stale}
    return kept | {"dtype": str(dtype).removeprefix("torch."), "tie_word_embeddings": _is_tied(head, encoder)}


def _head_settings(head: TrainedHead | None) -> dict[str, Any]:
    return {"task": head.purpose, **head.settings} if head else {}


def _file_tensors(
    module: nn.Module, file_names: Callable[[str], tuple[str, ...]], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Parameters under the names files give them; stacked ones are cut apart."""
    tensors: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        assert value.numel(), f"{name} is prepacked"
        parts = file_names(name)
        # Clones: safetensors refuses tensors that share memory.
        tensors |= {part: chunk.to(dtype).clone() for part, chunk in zip(parts, value.chunk(len(parts)), strict=True)}
    return tensors


def _save(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], settings: Mapping[str, Any]) -> None:
    if tensors:
        save_file(tensors, folder / layout.SAFETENSORS, metadata={"format": "pt"})
    for name, content in ((layout.CONFIG, config), (layout.SETTINGS, dict(settings))):
        if content:
            text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
            (folder / name).write_text(text, encoding="utf-8")


def _sync(draft: Path) -> None:
    """Puts every file on the disk before the rename makes it visible."""
    for path in (*draft.rglob("*"), draft):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
