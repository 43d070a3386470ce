"""LoRA adapters in the form PEFT saves them, added to their base as it is read.

A low-rank pair A (r, in) and B (out, r) stands for `scaling * B @ A` on a matrix of the base (Hu et al. 2021). It is
added where a stored tensor is loaded, so that everything behind sees one ordinary model: stacking of query, key and
value, checks of shapes, content hashes. Reference: `peft` 0.21. Whatever changes the base otherwise is refused by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.keys import PREFIXES, is_encoder_name
from xlmr_core.checkpoint.location import Location, locate
from xlmr_core.checkpoint.purpose import TaskKind
from xlmr_core.checkpoint.weights import SortedTensors, StoredTensor, open_file
from xlmr_core.errors import CheckpointError

_TASKS: Mapping[str, TaskKind] = {
    "SEQ_CLS": "sequence-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
}
# Keys that say how it was trained or made, or that are read below.
_INERT = {
    *("base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version", "auto_mapping"),
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "modules_to_save"),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "bias", "init_lora_weights", "lora_dropout"),
    *("inference_mode", "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "runtime_config", "ensure_weight_tying"),
}
# Other ways to begin change the base itself, and the adapter alone is not the whole model then.
_HARMLESS_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
_PAIR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        base: Where its base is.
        task: What it was trained for; None when it does not say.
        scalings: Factor of each low-rank product, by module of the base, without prefix.
        pairs: The low-rank matrices A and B, by module.
        replaced: Whole tensors in the place of the base's, by name without prefix: the heads that were trained with it.
        file: The file of the weights.
    """

    base: Location
    task: TaskKind | None
    scalings: Mapping[str, float]
    pairs: Mapping[str, tuple[StoredTensor, StoredTensor]]
    replaced: Mapping[str, StoredTensor]
    file: Path

    def apply(self, base: SortedTensors) -> SortedTensors:
        """The base's tensors with the adapter on them; bytes are touched when one is loaded.

        Raises:
            CheckpointError: Matrices that have no place in the base or do not fit there, all at once.
        """
        stored = {**base.encoder, **base.others}
        changed: dict[str, StoredTensor] = dict(self.replaced)
        problems = []
        for module, (a, b) in self.pairs.items():
            weight = stored.get(f"{module}.weight")
            if weight is None:
                problems.append(f"{module} is adapted, the base has no such matrix")
            elif a.shape[1:] != weight.shape[1:] or b.shape[:1] != weight.shape[:1] or a.shape[:1] != b.shape[1:]:
                problems.append(f"{module} is adapted by {b.shape} x {a.shape}, the base's matrix is {weight.shape}")
            else:
                changed[f"{module}.weight"] = _sum(weight, a, b, self.scalings[module])
        _refuse(self.file, problems)
        encoder = {name: changed.get(name, tensor) for name, tensor in base.encoder.items()}
        others = dict(base.others) | {name: tensor for name, tensor in changed.items() if name not in encoder}
        return replace(base, files=(*base.files, self.file), encoder=encoder, others=others)


def read_adapter(directory: Path) -> Adapter | None:
    """Reads the adapter of a directory; None when there is no `adapter_config.json`.

    Raises:
        CheckpointError: It is no plain LoRA, is incomplete, or its base cannot be found; all at once.
    """
    path = directory / layout.ADAPTER_CONFIG
    if not path.is_file():
        return None
    config = layout.read_json(path, dict)
    file = directory / layout.ADAPTER
    problems = _config_problems(config)
    if not file.is_file():
        problems.append(f"{file.name} is missing; save the adapter again, as safetensors")
    _refuse(path, problems)
    halves: dict[str, dict[str, StoredTensor]] = {}
    replaced = {}
    for name, stored in open_file(file).items():
        found = _PAIR.fullmatch(_bare(name))
        if found:
            halves.setdefault(found["module"], {})[found["side"]] = stored
        elif "lora_" in name:
            problems.append(f"{name}, only adapted matrices are implemented")
        else:
            replaced[_bare(name)] = stored
    pairs = {module: (half["A"], half["B"]) for module, half in halves.items() if len(half) == 2}
    problems += [f"{module} has only one of lora_A and lora_B" for module in halves.keys() - pairs.keys()]
    problems += [
        f"{module} is adapted, target_modules does not name it" for module in pairs if not _aims(config, module)
    ]
    problems += [f"{module} is adapted by no matrices" for module, pair in pairs.items() if not _are_matrices(pair)]
    _refuse(path, problems)
    scalings = {module: _scaling(config, module, a) for module, (a, _) in pairs.items()}
    task = _TASKS.get(str(config.get("task_type")))
    return Adapter(_find_base(directory, config), task, scalings, pairs, replaced, file)


def _config_problems(config: Mapping[str, Any]) -> list[str]:
    """What is not plain LoRA."""
    if config.get("peft_type") != "LORA":
        return [f"peft_type {config.get('peft_type')!r}, only LORA is implemented; merge it into its base with peft"]
    rule = "is not implemented; merge the adapter into its base with peft"
    problems = [f"{key} {value!r:.80} {rule}" for key, value in config.items() if value and key not in _INERT]
    if config.get("bias", "none") != "none":
        problems.append(f"bias {config['bias']!r} {rule}")
    if config.get("init_lora_weights") not in _HARMLESS_STARTS:
        problems.append(f"init_lora_weights {config['init_lora_weights']!r} {rule}")
    if not isinstance(config.get("base_model_name_or_path"), str):
        problems.append("base_model_name_or_path is missing; it must name the base")
    for key in ("r", "lora_alpha"):
        value = config.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            problems.append(f"{key} {value!r}, it must be a positive number")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(isinstance(alpha, int | float) for alpha in patterns.values()):
        problems.append(f"alpha_pattern {patterns!r:.80}, it must map endings of names to numbers")
    elif any(re.search(r"[^\w.-]", ending) for ending in patterns):
        problems.append(f"alpha_pattern {patterns!r:.80}, only endings of names are read, not regular expressions")
    return problems


def _are_matrices(pair: tuple[StoredTensor, StoredTensor]) -> bool:
    return all(len(half.shape) == 2 and half.shape[0] and half.shape[1] for half in pair)


def _bare(name: str) -> str:
    """A name without PEFT's wrapping and the encoder's prefix."""
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.", ".")
    for prefix in sorted(PREFIXES, key=len, reverse=True):
        if is_encoder_name(name, prefix) or name.startswith(f"{prefix}pooler."):
            return name.removeprefix(prefix)
    return name


def _aims(config: Mapping[str, Any], module: str) -> bool:
    """Whether `target_modules` means this module.

    A list names endings. A regular expression of a stranger is not run: the names of the tensors say the same.
    """
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return True
    return any(_ends(prefix + module, str(target)) for prefix in PREFIXES for target in targets)


def _scaling(config: Mapping[str, Any], module: str, a: StoredTensor) -> float:
    """Factor of a product; the rank is that of its matrices."""
    patterns = config.get("alpha_pattern") or {}
    own = (alpha for ending, alpha in patterns.items() for prefix in PREFIXES if _ends(prefix + module, ending))
    alpha, rank = next(own, config["lora_alpha"]), a.shape[0]
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def _ends(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")


def _find_base(directory: Path, config: Mapping[str, Any]) -> Location:
    """The base: a directory beside the adapter or anywhere, `mini`, or a Hub id with its revision."""
    name, revision = str(config["base_model_name_or_path"]), config.get("revision")
    beside = directory / name
    if name and beside.is_dir():
        return Location(beside, None)
    try:
        return locate(f"{name}@{revision}" if revision and not Path(name).is_absolute() else name)
    except CheckpointError as error:
        raise CheckpointError(
            f"{directory / layout.ADAPTER_CONFIG}: base_model_name_or_path {name!r} was not found, it must be a "
            f"directory (absolute, or relative to the adapter) or a Hub id; correct it\n  {error}"
        ) from None


def _sum(weight: StoredTensor, a: StoredTensor, b: StoredTensor, scaling: float) -> StoredTensor:
    """A stored tensor plus a low-rank product, in float32."""

    def load() -> Tensor:
        product = b.load().to(torch.float32) @ a.load().to(torch.float32)
        return weight.load().to(torch.float32) + scaling * product

    readable = all(part.dtype is not None for part in (weight, a, b))
    return StoredTensor(weight.shape, torch.float32 if readable else None, load)


def _refuse(source: Path, problems: list[str]) -> None:
    if problems:
        lines = "\n".join(f"  {line}" for line in sorted(problems)[:40])
        raise CheckpointError(f"{source} cannot be used as an adapter:\n{lines}")
