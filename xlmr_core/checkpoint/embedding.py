"""What turns hidden states into a sentence vector, as sentence-transformers stores it.

`modules.json` lists a Transformer, a Pooling and any number of Dense, LayerNorm and Normalize modules. Types
and activations are known by the last part of their Python path and come from fixed tables: nothing a file
names is ever imported. Reference: sentence-transformers 6.2, which still reads what version 0.2 wrote.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.assembly import on_meta
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import POOLING_MODES, PoolingMode, PoolingSpec

ModuleKind = Literal["Dense", "LayerNorm", "Normalize"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]

# In the order in which sentence-transformers concatenates what these booleans switch on.
_OLD_POOLING: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """One module after pooling.

    Attributes:
        kind: What it computes.
        directory: Where its weights are; None for Normalize, which has none.
        in_features: Width of its input; 0 for Normalize, which takes any.
        out_features: Width of its output; 0 for Normalize.
        activation: Dense only: name of a torch activation class.
        bias: Dense only: whether a bias is added.
        residual: Dense only: whether its input is added to its output, projected where widths differ.
    """

    kind: ModuleKind
    directory: Path | None = None
    in_features: int = 0
    out_features: int = 0
    activation: str = "Identity"
    bias: bool = True
    residual: bool = False

    def build(self) -> nn.Module:
        """The module without weights."""
        match self.kind:
            case "Dense":
                return on_meta(lambda: Dense(self))
            case "LayerNorm":
                return on_meta(lambda: SentenceNorm(self.in_features))
            case "Normalize":
                return Normalize()


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """How a checkpoint makes sentence vectors.

    Attributes:
        pooling: First step.
        modules: Steps after pooling, in order, a final Normalize excepted.
        normalize: Whether the vector gets unit length at the end.
        prompts: Texts to put before a record, by name.
        default_prompt_name: The prompt to use when none is asked for.
        truncate_dim: How many leading values to keep when the user does not say; None for all.
        similarity: How its vectors are meant to be compared; None for no statement.
    """

    pooling: PoolingSpec = field(default_factory=PoolingSpec)
    modules: tuple[ModuleSpec, ...] = ()
    normalize: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    similarity: Similarity | None = None

    @classmethod
    def of_pooling(cls, pooling: PoolingSpec) -> "EmbeddingSpec":
        """Pooling and nothing else, for a checkpoint that does not say."""
        return cls(pooling=pooling)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], *, source: str) -> "EmbeddingSpec | None":
        """Reads what an `xlmr.json` says.

        Args:
            settings: `pooling` is needed; `include_prompt`, `normalize`, `prompts`, `default_prompt_name`,
                `truncate_dim` and `similarity_fn_name` may be there.
            source: The file, for messages.

        Returns:
            None when the file names no pooling.

        Raises:
            CheckpointError: All that is wrong with them.
        """
        if "pooling" not in settings:
            return None
        problems: list[str] = []
        pooling = _pooling({"pooling_mode": settings["pooling"], **settings}, problems)
        prompts, default, truncate_dim = _prompts(settings, problems)
        similarity = _similarity(settings, problems)
        _refuse(source, problems)
        return cls(pooling, (), bool(settings.get("normalize", False)), prompts, default, truncate_dim, similarity)


@dataclass(frozen=True, slots=True)
class SentenceLayout:
    """What the sentence-transformers files of a directory say.

    Attributes:
        encoder_directory: Where config, weights and tokenizer are.
        embedding: None when no Pooling module is listed, as in a cross-encoder.
        max_length: Longest input, special tokens included; None for no statement.
        activation: Class name of a cross-encoder's activation; None for no statement.
    """

    encoder_directory: Path
    embedding: EmbeddingSpec | None
    max_length: int | None
    activation: str | None


def read_sentence_layout(directory: Path) -> SentenceLayout:
    """Reads whatever sentence-transformers files a model directory has; none of them is needed.

    Raises:
        CheckpointError: Unknown modules, pooling modes, activations and whatever else is wrong, all at once.
    """
    problems: list[str] = []
    listed = layout.read_json(directory / layout.MODULES, list) if (directory / layout.MODULES).is_file() else []
    steps = [_listed_module(directory, entry, problems) for entry in listed]
    kinds = [kind for kind, _ in steps]
    if kinds and kinds[:2] not in (["Transformer"], ["Transformer", "Pooling"]):
        problems.append(f"{layout.MODULES} lists {', '.join(kinds)}, it must begin with Transformer, Pooling")
    _refuse(str(directory), problems)
    encoder_directory = steps[0][1] if steps else directory
    sentence = layout.read_json_if_any(directory / layout.SENTENCE_CONFIG)
    limits = next((encoder_directory / n for n in layout.SENTENCE_LIMITS if (encoder_directory / n).is_file()), None)
    limit = layout.read_json_if_any(limits) if limits else {}
    if limit.get("do_lower_case"):
        problems.append("do_lower_case true, XLM-R tokenizers keep case; set it to false if the model was trained so")
    embedding = _embedding(steps, sentence, problems) if "Pooling" in kinds else None
    max_length = limit.get("max_seq_length")
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        problems.append(f"max_seq_length {max_length!r}, it must be a positive whole number or null")
    _refuse(str(directory), problems)
    activation = sentence.get("activation_fn")
    return SentenceLayout(encoder_directory, embedding, max_length, _class_name(activation) if activation else None)


def activation_of_config(extra: Mapping[str, Any]) -> str | None:
    """Activation of a cross-encoder that keeps it in its `config.json`, by either of two old names."""
    newer = extra.get("sentence_transformers")
    named = newer.get("activation_fn") if isinstance(newer, dict) else None
    named = named or extra.get("sbert_ce_default_activation_function")
    return _class_name(named) if named else None


def _listed_module(directory: Path, entry: Any, problems: list[str]) -> tuple[str, Path]:
    """Class name and folder of one entry of `modules.json`."""
    kind = _class_name(entry.get("type")) if isinstance(entry, dict) else ""
    if kind not in ("Transformer", "Pooling", *get_args(ModuleKind)):
        known = ", ".join(("Transformer", "Pooling", *get_args(ModuleKind)))
        problems.append(f"{layout.MODULES} lists the module {entry!r:.200}, known are {known}")
        return kind, directory
    folder = directory / str(entry.get("path", ""))
    if not folder.resolve().is_relative_to(directory.resolve()):
        problems.append(f"{layout.MODULES} points to {folder}, modules must lie inside the model directory")
    return kind, folder


def _embedding(steps: list[tuple[str, Path]], sentence: dict[str, Any], problems: list[str]) -> EmbeddingSpec:
    """Pooling and what follows it."""
    pooling = _pooling(layout.read_json_if_any(steps[1][1] / layout.CONFIG), problems)
    modules = [_module(kind, folder, problems) for kind, folder in steps[2:]]
    normalize = bool(modules) and modules[-1].kind == "Normalize"
    prompts, default, truncate_dim = _prompts(sentence, problems)
    return EmbeddingSpec(
        pooling,
        tuple(modules[:-1] if normalize else modules),
        normalize,
        prompts,
        default,
        truncate_dim,
        _similarity(sentence, problems),
    )


def _pooling(config: Mapping[str, Any], problems: list[str]) -> PoolingSpec:
    """Both ways of naming pooling modes; the new one keeps the order in which it lists them."""
    named = config.get("pooling_mode")
    if named is None:
        named = [mode for key, mode in _OLD_POOLING.items() if config.get(key)] or ["mean"]
    modes = [named] if isinstance(named, str) else named
    if not isinstance(modes, list) or not modes or not all(mode in POOLING_MODES for mode in modes):
        problems.append(f"pooling_mode {named!r}, known are {', '.join(POOLING_MODES)}")
        modes = ["mean"]
    unknown = [key for key in config if key.startswith("pooling_mode_") and config[key] and key not in _OLD_POOLING]
    problems += [f"{key} true, known are {', '.join(_OLD_POOLING)}" for key in unknown]
    return PoolingSpec(cast(tuple[PoolingMode, ...], tuple(modes)), bool(config.get("include_prompt", True)))


def _module(kind: str, folder: Path, problems: list[str]) -> ModuleSpec:
    """A module after pooling."""
    config = layout.read_json_if_any(folder / layout.CONFIG)
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            problems.append(f"{folder.name}: {key} {config[key]!r}, only sentence vectors are processed after pooling")
    match kind:
        case "Normalize":
            return ModuleSpec("Normalize")
        case "LayerNorm":
            width = _width(config, "dimension", folder, problems)
            return ModuleSpec("LayerNorm", folder, width, width)
        case "Dense":
            activation = _class_name(config.get("activation_function", "Tanh"))
            if activation not in _ACTIVATIONS:
                problems.append(
                    f"{folder.name}: activation_function {activation!r}, known are {', '.join(_ACTIVATIONS)}"
                )
            return ModuleSpec(
                "Dense",
                folder,
                _width(config, "in_features", folder, problems),
                _width(config, "out_features", folder, problems),
                activation,
                bool(config.get("bias", True)),
                bool(config.get("use_residual", False)),
            )
    problems.append(f"{folder.name}: a {kind} module is behind Pooling, there may be {', '.join(get_args(ModuleKind))}")
    return ModuleSpec("Normalize")


def _width(config: Mapping[str, Any], key: str, folder: Path, problems: list[str]) -> int:
    value = config.get(key)
    if not isinstance(value, int) or not 0 < value < 2**20:
        problems.append(f"{folder.name}: {key} {value!r}, it must be a positive whole number")
        return 1
    return value


def _prompts(config: Mapping[str, Any], problems: list[str]) -> tuple[dict[str, str], str | None, int | None]:
    """Prompts, the default one's name and the vector length to keep."""
    raw = config.get("prompts") or {}
    if not isinstance(raw, dict) or not all(isinstance(text, str | None) for text in raw.values()):
        problems.append("prompts, it must map names to texts")
        raw = {}
    prompts = {str(name): text or "" for name, text in raw.items()}
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        problems.append(f"default_prompt_name {default!r}, the prompts are {', '.join(prompts) or 'none'}")
    truncate_dim = config.get("truncate_dim")
    if truncate_dim is not None and (not isinstance(truncate_dim, int) or truncate_dim < 1):
        problems.append(f"truncate_dim {truncate_dim!r}, it must be a positive whole number or null")
    return prompts, cast(str | None, default), cast(int | None, truncate_dim)


def _similarity(config: Mapping[str, Any], problems: list[str]) -> Similarity | None:
    named = config.get("similarity_fn_name")
    if named is not None and named not in get_args(Similarity):
        problems.append(f"similarity_fn_name {named!r}, known are {', '.join(get_args(Similarity))}")
    return cast(Similarity | None, named)


def _class_name(path: object) -> str:
    """Last part of a dotted Python path."""
    return str(path).rpartition(".")[2]


def _refuse(source: str, problems: list[str]) -> None:
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise CheckpointError(f"{source} cannot be used for sentence vectors as it is:\n{lines}")


class Dense(nn.Module):
    """`activation(linear(x))`, plus `x` where the module is residual: sentence-transformers' `Dense`."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.in_features, spec.out_features, bias=spec.bias)
        self.activation = _ACTIVATIONS[spec.activation]()
        self.is_residual = spec.residual
        if spec.residual and spec.in_features != spec.out_features:
            self.residual = nn.Linear(spec.in_features, spec.out_features, bias=False)

    def forward(self, vectors_BD: Tensor) -> Tensor:
        """(B, in_features) to (B, out_features)."""
        dense_BE: Tensor = self.activation(self.linear(vectors_BD))
        if not self.is_residual:
            return dense_BE
        return dense_BE + (self.residual(vectors_BD) if hasattr(self, "residual") else vectors_BD)


class SentenceNorm(nn.Module):
    """LayerNorm under the name its file gives it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors_BD: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        normed_BD: Tensor = self.norm(vectors_BD)
        return normed_BD


class Normalize(nn.Module):
    """Unit length."""

    def forward(self, vectors_BD: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return F.normalize(vectors_BD, dim=-1)
