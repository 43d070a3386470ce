"""Low-rank branches beside frozen matrices of an encoder: "LoRA" (Hu et al. 2021), "rsLoRA" (Kalajdzievski 2023).

A branch adds `scaling * B @ A @ dropout(x)` to what a matrix makes of x. A (r, in) starts random and B (out, r) at
zero, so training begins at the base model. Names, targets and initial values are those of `peft` 0.21, which must agree
(tests/xlmr_core/test_lora.py). Query, key and value are one matrix here; each has a branch of its own on its rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import TaskError
from xlmr_core.linear import Linear, activate

ALL_LINEAR = "all-linear"
# The one matrix that is several in files.
_FUSED = {"qkv": ("query", "key", "value")}


@dataclass(frozen=True, slots=True)
class LowRank:
    """Which matrices of an encoder have branches, and of what kind; defaults are those of `peft` for XLM-R.

    Attributes:
        rank: Rows of A, r.
        alpha: The branch is scaled by alpha / rank.
        dropout: Of what goes into a branch.
        rank_stabilised: Scale by alpha / sqrt(rank) instead, as rsLoRA does.
        targets: Endings of the matrices' names in files: "query", "key", "value", "attention.output.dense",
            "intermediate.dense", "output.dense" and "dense" for those that end so; "all-linear" for all.
        layers: Only in these layers, counted from 0; None for all.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    targets: tuple[str, ...] = ("query", "value")
    layers: tuple[int, ...] | None = None

    @property
    def scaling(self) -> float:
        """Factor of every branch."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class Branch(nn.Module):
    """What is trained of one matrix.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        settings: Rank, scaling and dropout.
    """

    def __init__(self, in_features: int, out_features: int, settings: LowRank) -> None:
        super().__init__()
        self.settings = settings
        self.lora_A = nn.Parameter(torch.empty(settings.rank, in_features))
        self.lora_B = nn.Parameter(torch.zeros(out_features, settings.rank))
        self.dropout = nn.Dropout(settings.dropout)
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        # Scaled where it is small.
        return F.linear(F.linear(self.dropout(x), self.lora_A) * self.settings.scaling, self.lora_B)

    def product(self) -> Tensor:
        """What the branch adds to its matrix (out_features, in_features), float32."""
        return self.settings.scaling * (self.lora_B.float() @ self.lora_A.float())


class AdaptedLinear(nn.Module):
    """A frozen linear layer with branches on its rows; the activation comes after both.

    Args:
        base: The layer; loses its activation to this one.
        parts: Names of the equal parts of its rows, in order.
        branches: Branches by name of the part.
    """

    def __init__(self, base: Linear, parts: Sequence[str], branches: Mapping[str, Branch]) -> None:
        super().__init__()
        self.base, self.parts, self.activation = base, tuple(parts), base.activation
        base.activation = None
        self.branches = nn.ModuleDict(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        parts = self.base(x).chunk(len(self.parts), dim=-1)
        sums = [
            part + self.branches[name](x) if name in self.branches else part
            for name, part in zip(self.parts, parts, strict=True)
        ]
        return activate(sums[0] if len(sums) == 1 else torch.cat(sums, dim=-1), self.activation)

    def merged_weight(self) -> Tensor:
        """The one matrix that does the same (out_features, in_features)."""
        weight = self.base.weight.detach().clone()
        assert weight.numel(), "the base is prepacked"
        for name, rows in zip(self.parts, weight.chunk(len(self.parts)), strict=True):
            if name in self.branches:
                branch = self.branches[name]
                assert isinstance(branch, Branch)
                rows += branch.product().detach()
        return weight


def adapt(encoder: Encoder, settings: LowRank, *, seed: int) -> None:
    """Freezes an encoder and puts branches beside its matrices, in place.

    Args:
        encoder: Computes the same as before until the branches are trained.
        settings: Which branches.
        seed: Of their initial values.

    Raises:
        TaskError: The settings do not fit the encoder, all that is wrong at once, or it has branches already.
    """
    problems = problems_of(settings, encoder.config)
    if branches(encoder):
        problems.append("the encoder has low-rank branches already; merge them first")
    if problems:
        raise TaskError("; ".join(problems))
    encoder.requires_grad_(False)
    # Chance of its own, so that what ran before does not matter.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for path, parts in _parts_of_linears(encoder).items():
            chosen = [part for name, part in parts.items() if _is_chosen(name, settings)]
            if chosen:
                base = encoder.get_submodule(path)
                assert isinstance(base, Linear)
                rows = base.out_features // len(parts)
                made = {part: Branch(base.in_features, rows, settings) for part in chosen}
                parent, _, attribute = path.rpartition(".")
                adapted = AdaptedLinear(base, list(parts.values()), made).to(base.weight.device)
                setattr(encoder.get_submodule(parent), attribute, adapted.train(base.training))


def merged(encoder: Encoder) -> Encoder:
    """An encoder without branches whose matrices contain them, in float32.

    Everything that is not adapted is shared with the encoder that goes in, which stays as it is; it is returned itself
    where it has no branches.
    """
    adapted = dict(_adapted(encoder))
    if not adapted:
        return encoder
    inside = tuple(f"{path}." for path in adapted)
    state = {name: value for name, value in encoder.state_dict().items() if not name.startswith(inside)}
    for path, module in adapted.items():
        state |= {f"{path}.weight": module.merged_weight(), f"{path}.bias": module.base.bias.detach()}
    with torch.device("meta"):
        plain = Encoder(encoder.config)
    plain.load_state_dict(state, assign=True)
    return plain.train(encoder.training)


def branches(encoder: Encoder) -> dict[str, Branch]:
    """The branches of an encoder, by the name of their matrix in files: `encoder.layer.0.attention.self.query`."""
    found: dict[str, Branch] = {}
    for path, module in _adapted(encoder):
        for part, branch in module.branches.items():
            assert isinstance(branch, Branch)
            found[f"{path.rpartition('.')[0]}.{part}"] = branch
    return found


def problems_of(settings: LowRank, config: EncoderConfig) -> list[str]:
    """Why an encoder of this shape cannot have these branches, one line each."""
    problems = []
    if settings.rank < 1:
        problems.append(f"rank {settings.rank}, it must be at least 1")
    if not 0 < settings.alpha < math.inf:
        problems.append(f"alpha {settings.alpha}, it must be a positive number")
    if not 0 <= settings.dropout < 1:
        problems.append(f"dropout {settings.dropout}, it must be at least 0 and below 1")
    with torch.device("meta"):
        names = [name for parts in _parts_of_linears(Encoder(config)).values() for name in parts]
    unknown = [target for target in settings.targets if not any(_ends(name, target) for name in names)]
    if unknown or not settings.targets:
        known = ", ".join(dict.fromkeys(name.split(".", 3)[3] for name in names))
        named = ", ".join(map(repr, unknown)) or "()"
        problems.append(f"targets {named}, there are {known}; name endings of these, or {ALL_LINEAR}")
    count = config.num_hidden_layers
    beyond = [layer for layer in settings.layers or () if not 0 <= layer < count]
    if beyond or settings.layers == ():
        named = ", ".join(map(str, beyond)) or "()"
        problems.append(f"layers {named}, the encoder has {count}, counted from 0; leave layers out for all")
    return problems


def _adapted(encoder: Encoder) -> Iterator[tuple[str, AdaptedLinear]]:
    return ((path, module) for path, module in encoder.named_modules() if isinstance(module, AdaptedLinear))


def _parts_of_linears(encoder: Encoder) -> dict[str, dict[str, str]]:
    """Every linear layer by its path, and its parts: their full name in files, and the last piece of it."""
    found = {}
    for path, module in encoder.named_modules():
        if isinstance(module, Linear):
            parent, _, attribute = path.rpartition(".")
            found[path] = {f"{parent}.{part}": part for part in _FUSED.get(attribute, (attribute,))}
    return found


def _is_chosen(name: str, settings: LowRank) -> bool:
    """Whether the matrix `encoder.layer.N. ...` gets a branch."""
    in_layer = settings.layers is None or int(name.split(".")[2]) in settings.layers
    return in_layer and any(_ends(name, target) for target in settings.targets)


def _ends(name: str, target: str) -> bool:
    return target == ALL_LINEAR or f".{name}".endswith(f".{target}")
