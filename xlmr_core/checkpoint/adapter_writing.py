"""LoRA adapters as `peft` 0.21 saves them, and `adapter.py` reads them.

`adapter_model.safetensors` holds A and B of every branch and the heads that were trained with them, under the names of
the class of transformers that has such a head; `adapter_config.json` says what they are for and names the base.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.lora import Branch

_WRAPPED = "base_model.model."
_TASK_TYPES: Mapping[HeadKind | None, str] = {
    None: "FEATURE_EXTRACTION",
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}


def write_adapter(
    directory: Path,
    branches: Mapping[str, Branch],
    head: Mapping[str, Tensor],
    *,
    kind: HeadKind | None,
    prefix: str,
    base: str,
    dtype: torch.dtype,
) -> None:
    """Writes config and weights of an adapter.

    Args:
        directory: Where to.
        branches: By name of their matrix in files, without prefix; at least one, all of the same settings.
        head: Tensors of the head by name in files, prefix included; they take the place of the base's.
        kind: Which head; None for a bare encoder.
        prefix: Of the encoder in the class of transformers that has this head.
        base: The model under the adapter: a directory, `mini` or `org/name[@revision]`.
        dtype: Type of the stored weights.
    """
    settings = next(iter(branches.values())).settings
    tensors = {_WRAPPED + name: value for name, value in head.items()}
    for name, branch in branches.items():
        for half, value in (("lora_A", branch.lora_A), ("lora_B", branch.lora_B)):
            tensors[f"{_WRAPPED}{prefix}{name}.{half}.weight"] = value.detach().to("cpu", dtype).clone()
    save_file(tensors, directory / layout.ADAPTER, metadata={"format": "pt"})
    is_directory = base == "mini" or Path(base).is_dir()
    name, _, revision = (base, "", "") if is_directory else base.partition("@")
    config = {
        "peft_type": "LORA",
        "task_type": _TASK_TYPES.get(kind),
        "base_model_name_or_path": name,
        "revision": revision or None,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rank_stabilised,
        # Each by its whole name: endings may fit matrices of a head too, and other layers.
        "target_modules": sorted(branches),
        "modules_to_save": sorted({_module_of(name, prefix) for name in head}) or None,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    (directory / layout.ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _module_of(name: str, prefix: str) -> str:
    """The outermost module of a head that a tensor belongs to."""
    return name.removeprefix(prefix).partition(".")[0]
