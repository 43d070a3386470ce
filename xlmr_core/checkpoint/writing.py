"""Writing a model directory that this package and `transformers` both open."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.adapter_writing import write_adapter
from xlmr_core.checkpoint.embedding import EmbeddingSpec
from xlmr_core.checkpoint.keys import LAST_MODULE, HeadKind, decoder_file_names, encoder_file_names, head_file_names
from xlmr_core.checkpoint.purpose import HEAD_OF_TASK, TaskKind, class_of_task
from xlmr_core.checkpoint.sentence_writing import write_sentence_files
from xlmr_core.checkpoint.task_heads import HEAD_CLASSES, LABELLED
from xlmr_core.config import ProblemType
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import Head, MaskedLMHead, SequenceHead, TokenHead
from xlmr_core.lora import branches, merged


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
    base: str | None = None,
) -> None:
    """Writes encoder, tokenizer files, config, heads and `xlmr.json`; it appears whole or not at all.

    Args:
        directory: Where to; must not exist yet or be empty.
        encoder: Not prepacked: prepacked weights are in another layout and cannot be written. Beside a causal-lm head
            it is written as a decoder, whatever it was before: this is how training one begins. Low-rank branches are
            merged into it.
        tokenizer: A directory whose tokenizer files are copied.
        head: The directory's own head, beside the encoder as `transformers` has it.
        heads: Further heads, each in `heads/NAME` and opened as `DIR#NAME`.
        settings: What `xlmr.json` says for the whole directory.
        dtype: Type of the stored weights.
        base: Write an adapter of this model: nothing of the encoder but its low-rank branches, the rest is the base's.

    Raises:
        CheckpointError: The target is occupied, the tokenizer is missing, labels do not fit a head, or what shall be
            an adapter has no branches.
    """
    problems = _problems(directory, encoder, tokenizer, {"": head, **(heads or {})})
    if base is not None and not branches(encoder):
        problems.append("its encoder has no low-rank branches, an adapter is made of them; leave the base out")
    if problems:
        raise CheckpointError(f"{directory} cannot be written: " + "; ".join(problems))
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays on one file system.
    draft = Path(mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _write_root(draft, encoder, head, settings or {}, dtype, base)
        if head is not None and head.purpose == "embedding" and head.module is None and base is None:
            length = _max_length(encoder, head, tokenizer)
            write_sentence_files(draft, head.settings, hidden_size=encoder.config.hidden_size, max_length=length)
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


def _problems(directory: Path, encoder: Encoder, tokenizer: Path, heads: Mapping[str, TrainedHead | None]) -> list[str]:
    problems = []
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        problems.append("it exists and is not empty, nothing is ever overwritten; choose another or delete it")
    if not any((tokenizer / name).is_file() for name in layout.TOKENIZER_KINDS):
        problems.append(f"{tokenizer} has no tokenizer files, a model directory needs them; pass the base model's")
    is_causal = encoder.config.is_decoder or any(head and head.purpose == "causal-lm" for head in heads.values())
    for name, head in heads.items():
        where = f"head {name!r}" if name else "its head"
        if name and Path(name).name != name:
            problems.append(f"{where}, the name must be a plain file name")
        if head and head.module and head.kind and not isinstance(head.module, HEAD_CLASSES[head.kind]):
            problems.append(f"{where} is for {head.purpose}, a {type(head.module).__name__} does not serve that")
        elif head and head.labels and len(head.labels) != head.num_outputs:
            problems.append(f"{where} has {len(head.labels)} labels, it must have {head.num_outputs}")
        if head and is_causal and (name or head.purpose != "causal-lm"):
            rule = "an encoder for causal-lm sees one side of a text and has that head alone"
            problems.append(f"{where} is for {head.purpose}, {rule}; write a directory for each")
        if head and head.module is None and EmbeddingSpec.from_settings(head.settings, source=where) is None:
            problems.append(f"{where} has neither weights nor pooling, give it one of them")
    return problems


def _write_root(
    draft: Path,
    encoder: Encoder,
    head: TrainedHead | None,
    settings: Mapping[str, Any],
    dtype: torch.dtype,
    base: str | None,
) -> None:
    """Config, weights and settings of the directory itself."""
    config = _config(encoder, head, dtype)
    # A bare encoder has no prefix; beside a head it has one.
    is_bare = config["architectures"][0] == class_of_task(None, config["model_type"])
    prefix = "" if is_bare else {"bert": "bert."}.get(config["model_type"], "roberta.")
    # `peft` opens a head only if all of it is there, the table too.
    tensors = _head_tensors(head, encoder, dtype, is_whole=base is not None) if head else {}
    tensors = {prefix + name if name.startswith("pooler.") else name: value for name, value in tensors.items()}
    if base is None:
        plain = merged(encoder)
        tensors |= _file_tensors(plain, lambda name: tuple(prefix + part for part in encoder_file_names(name)), dtype)
    else:
        kind = head.kind if head else None
        write_adapter(draft, branches(encoder), tensors, kind=kind, prefix=prefix, base=base, dtype=dtype)
        tensors = {}
    _save(draft, tensors, config, {**settings, **_head_settings(head)})


def _max_length(encoder: Encoder, head: TrainedHead, tokenizer: Path) -> int:
    """The least of what head, tokenizer and positions state, tokens."""
    stated = layout.read_json_if_any(tokenizer / "tokenizer_config.json").get("model_max_length")
    # Beyond this, it says that there is no limit.
    known = [int(stated)] if isinstance(stated, int | float) and 0 < stated < 100_000 else []
    own: int = head.settings.get("max_length", encoder.config.max_tokens)
    return min(encoder.config.max_tokens, own, *known)


def _write_head(folder: Path, encoder: Encoder, head: TrainedHead, dtype: torch.dtype) -> None:
    """Config, weights and settings of one of several heads."""
    folder.mkdir(parents=True)
    tensors = _head_tensors(head, encoder, dtype)
    whole = _config(encoder, head, dtype)
    labels: dict[str, Any] = {
        key: whole[key] for key in ("id2label", "label2id", "problem_type", "architectures") if key in whole
    }
    _save(folder, tensors, labels, _head_settings(head))


def _head_tensors(
    head: TrainedHead, encoder: Encoder, dtype: torch.dtype, *, is_whole: bool = False
) -> dict[str, Tensor]:
    """A head's parameters; a masked-LM head that uses the embedding table does not repeat it, unless it is whole."""
    kind, model_type = head.kind, encoder.config.model_type
    if head.module is None or kind is None:
        return {}
    file_names = partial(head_file_names, kind, model_type=model_type)
    if kind != "masked-lm":
        return _file_tensors(head.module, file_names, dtype)
    is_tied = not is_whole and _is_tied(head, encoder)
    tensors = _file_tensors(head.module, file_names, dtype, without=("decoder.weight",) if is_tied else ())
    _, bias, usual_bias = decoder_file_names(model_type)
    tensors[usual_bias] = tensors[bias].clone()
    if is_tied:
        del tensors[bias]
    return tensors


def _is_tied(head: TrainedHead | None, encoder: Encoder) -> bool:
    """Whether a masked-LM head projects with the very embedding table; true where there is none."""
    if head is None or not isinstance(head.module, MaskedLMHead):
        return True
    matrix, table = head.module.decoder.weight, encoder.embeddings.word_embeddings.weight
    # Most often it is the same tensor; else a gigabyte may have to be looked through.
    return matrix is table or torch.equal(matrix, table)


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
        architectures=(class_of_task(head.purpose if head else None, model_type),),
        is_decoder=encoder.config.is_decoder or bool(head and head.purpose == "causal-lm"),
        id2label=labels,
        problem_type=head.problem_type if head else None,
    )
    stale = ("torch_dtype", "num_labels", "_name_or_path")
    kept = {key: value for key, value in config.to_dict().items() if key not in stale}
    return kept | {"dtype": str(dtype).removeprefix("torch."), "tie_word_embeddings": _is_tied(head, encoder)}


def _head_settings(head: TrainedHead | None) -> dict[str, Any]:
    return {"task": head.purpose, **head.settings} if head else {}


def _file_tensors(
    module: nn.Module,
    file_names: Callable[[str], tuple[str, ...]],
    dtype: torch.dtype,
    without: Collection[str] = (),
) -> dict[str, Tensor]:
    """Parameters under the names files give them; stacked ones are cut apart."""
    tensors: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        if name in without:
            continue
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
