"""What a checkpoint is, what was decided about it and from which file, and all that is wrong with it.

Every part of a directory is looked at on its own, so that one broken file does not hide another.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.adapter import Adapter, read_adapter
from xlmr_core.checkpoint.assembly import misfits, on_meta
from xlmr_core.checkpoint.calibration import HeadCalibration
from xlmr_core.checkpoint.embedding import EmbeddingSpec, activation_of_config, read_sentence_layout
from xlmr_core.checkpoint.keys import HeadKind, encoder_file_names
from xlmr_core.checkpoint.location import Location, locate
from xlmr_core.checkpoint.purpose import HEAD_OF_TASK, TaskKind
from xlmr_core.checkpoint.reading import Checkpoint, directory_of_tokenizer
from xlmr_core.checkpoint.task_heads import LABELLED
from xlmr_core.checkpoint.weights import SortedTensors, StoredTensor, open_weights, sort_tensors
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.tokenization import Tokenizer
from xlmr_core.tokenization.loading import TokenizerFiles, read_tokenizer

Level = Literal["fact", "ignored", "warning", "error"]
FoundT = TypeVar("FoundT")

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        topic: What it is about, such as "pooling".
        level: A fact or decision; something that is there and not used; a guess that the user should settle or an
            oddity; something that cannot work.
        says: What was found.
        source: The file or files that say so; None where no single file does.
        settle: The option or action that settles it; None where nothing needs to be done.
    """

    topic: str
    level: Level
    says: str
    source: str | None = None
    settle: str | None = None


@dataclass(slots=True)
class Diagnosis:
    """All findings about one checkpoint.

    Attributes:
        spec: What the user typed.
        findings: In the order in which they are best read.
        is_model: Whether there is anything to look at: a directory with a config or weights.
    """

    spec: str
    findings: list[Finding] = field(default_factory=list)
    is_model: bool = True

    @property
    def errors(self) -> list[Finding]:
        """What cannot work."""
        return [finding for finding in self.findings if finding.level == "error"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        plain = [asdict(finding) for finding in self.findings]
        return {"model": self.spec, "is_model": self.is_model, "sound": not self.errors, "findings": plain}

    def add(
        self, topic: str, says: str, source: str | None = None, *, level: Level = "fact", settle: str | None = None
    ) -> None:
        """Notes a finding."""
        self.findings.append(Finding(topic, level, says, source, settle))

    def attempt(self, topic: str, work: Callable[[], FoundT]) -> FoundT | None:
        """Does something that may show what is wrong; each line of its message becomes an error, once."""
        try:
            return work()
        except (CheckpointError, OSError) as error:
            head, *lines = str(error).split("\n")
            known = {finding.says for finding in self.findings}
            for line in (line.strip() for line in lines or [head]):
                if line not in known:
                    self.add(topic, line, level="error", settle=head.rstrip(":") if lines else None)
            return None


def diagnose(spec: str) -> Diagnosis:
    """Looks at everything in a model directory and never raises for what is wrong with it.

    Reads all weights once, for their hashes and to find values that are no numbers.

    Args:
        spec: As for `Checkpoint.open`.
    """
    found = Diagnosis(spec)
    location = found.attempt("location", lambda: locate(spec))
    if location is None:
        found.is_model = False
        return found
    revision = f"{location.repository} at {location.revision}" if location.repository else None
    found.add("location", str(location.directory.absolute()), revision)
    parts = _look_at_parts(found, location)
    checkpoint = found.attempt("checkpoint", lambda: Checkpoint.open(spec))
    if checkpoint is not None:
        _tell_decisions(found, checkpoint)
        _tell_heads(found, checkpoint)
        _tell_hashes(found, checkpoint)
    found.is_model = parts
    return found


def _look_at_parts(found: Diagnosis, location: Location) -> bool:
    """Config, weights and tokenizer, each on its own; returns whether there is a config or weights at all."""
    directory = location.directory
    adapter = found.attempt("adapter", lambda: read_adapter(directory))
    if adapter is not None:
        _tell_adapter(found, adapter)
    home = adapter.base.directory if adapter else directory
    sentence = found.attempt("sentence-transformers", lambda: read_sentence_layout(home))
    encoder_directory = sentence.encoder_directory if sentence else _likely_encoder_directory(home)
    config = found.attempt("config", lambda: EncoderConfig.from_file(encoder_directory / layout.CONFIG))
    if config is not None:
        _tell_shape(found, config)
    weights = found.attempt("weights", lambda: sort_tensors(open_weights(encoder_directory)))
    if weights is not None:
        _tell_weights(found, weights)
    if config is not None and weights is not None:
        _tell_misfits(found, config, weights)
    own = directory_of_tokenizer(directory, encoder_directory)
    files = found.attempt("tokenizer", lambda: read_tokenizer(own))
    if files is not None:
        _tell_tokenizer(found, files, own, weights)
    return config is not None or weights is not None or (encoder_directory / layout.CONFIG).is_file()


def _likely_encoder_directory(directory: Path) -> Path:
    """Where the encoder is when `modules.json` cannot be used."""
    own = directory / "0_Transformer"
    return own if (own / layout.CONFIG).is_file() else directory


def _tell_adapter(found: Diagnosis, adapter: Adapter) -> None:
    ranks = sorted({a.shape[0] for a, _ in adapter.pairs.values()})
    says = f"LoRA on {len(adapter.pairs)} matrices, rank {', '.join(map(str, ranks)) or 'none'}"
    found.add("adapter", f"{says}, {len(adapter.replaced)} tensors replaced", layout.ADAPTER_CONFIG)
    found.add("base", adapter.base.spec, layout.ADAPTER_CONFIG)


def _tell_shape(found: Diagnosis, config: EncoderConfig) -> None:
    found.add("family", config.model_type, layout.CONFIG)
    shape = (
        f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.num_attention_heads} attention heads, "
        f"feed-forward {config.intermediate_size} ({config.hidden_act}), {config.max_position_embeddings} positions"
    )
    found.add("shape", shape, layout.CONFIG)
    rule = "as in BERT" if config.model_type == "bert" else f"pad_token_id {config.pad_token_id} + 1"
    found.add(
        "positions", f"begin at row {config.first_position}: {rule}; {config.max_tokens} tokens fit", layout.CONFIG
    )
    typed = config.extra.get("dtype", config.extra.get("torch_dtype"))
    if typed is not None:
        found.add("type", f"{typed}, a remark only: --dtype decides what is computed in", layout.CONFIG)


def _tell_weights(found: Diagnosis, weights: SortedTensors) -> None:
    stored = {**weights.encoder, **weights.others}
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in stored.values())
    for path in weights.files:
        found.add("file", f"{path.stat().st_size:,} bytes", str(path.name))
    parameters = sum(_size(tensor) for tensor in weights.encoder.values())
    found.add("parameters", f"{parameters:,} in the encoder, {sum(map(_size, stored.values())):,} with all heads")
    found.add("stored type", ", ".join(f"{count} tensors {name}" for name, count in sorted(types.items())))
    found.add("prefix", weights.prefix or "none")
    for name, tensor in stored.items():
        if tensor.dtype is not None and not bool(torch.isfinite(tensor.load()).all()):
            says = f"{name} holds NaN or infinity"
            found.add("weights", says, level="error", settle="no record would get a number; download or train it again")


def _size(tensor: StoredTensor) -> int:
    return int(torch.Size(tensor.shape).numel())


def _tell_misfits(found: Diagnosis, config: EncoderConfig, weights: SortedTensors) -> None:
    word = weights.encoder.get("embeddings.word_embeddings.weight")
    # The vocabulary is as large as its table; everything else the config must have right.
    rows = word.shape[0] if word is not None and len(word.shape) == 2 else config.vocab_size
    sized = EncoderConfig.from_dict(config.to_dict() | {"vocab_size": rows})
    for line in misfits(on_meta(lambda: Encoder(sized)), weights.encoder, encoder_file_names):
        found.add("weights", line, level="error", settle="the encoder does not fit its config; download it again")


def _tell_tokenizer(found: Diagnosis, files: TokenizerFiles, directory: Path, weights: SortedTensors | None) -> None:
    file = next(name for name in layout.TOKENIZER_KINDS if (directory / name).is_file())
    tokenizer, special = Tokenizer(files), files.special
    ids = f"<s> {special.bos}, <pad> {special.pad}, </s> {special.eos}, <unk> {special.unk}, <mask> {special.mask}"
    found.add("tokenizer", f"{type(files.library.model).__name__}, {tokenizer.vocab_size:,} ids; {ids}", file)
    word = weights.encoder.get("embeddings.word_embeddings.weight") if weights else None
    if word is not None and tokenizer.vocab_size > word.shape[0]:
        says = f"gives ids up to {tokenizer.vocab_size - 1}, the embedding table has {word.shape[0]} rows"
        found.add("tokenizer", says, file, level="error", settle="take the tokenizer it was trained with")
    found.add("sha256 of the tokenizer", tokenizer.sha256)


def _tell_decisions(found: Diagnosis, checkpoint: Checkpoint) -> None:
    named = sorted(path.name for path in (checkpoint.directory / layout.HEADS).glob("*/"))
    if named and "#" not in checkpoint.resolved:
        found.add("heads", f"{', '.join(named)}; each opens as {checkpoint.spec}#NAME", f"{layout.HEADS}/")
    elif checkpoint.task is None:
        found.add("task", "it does not say what it is for", level="warning", settle="pass task=")
    if checkpoint.task is not None:
        found.add("task", checkpoint.task, checkpoint.task_source)
    limits = ", ".join(f"{limit} {source}" for source, limit in checkpoint.length_limits.items())
    decided_by = min(checkpoint.length_limits, key=checkpoint.length_limits.__getitem__)
    found.add("length limit", f"{checkpoint.max_length} tokens, the smallest of: {limits}", decided_by)
    _tell_embedding(found, checkpoint, checkpoint.embedding)
    for warning in checkpoint.report.warnings:
        says, _, settle = warning.partition("; ")
        found.add("checkpoint", says, level="warning", settle=settle or None)
    ignored = checkpoint.report.ignored
    for name in ignored[:_SHOWN]:
        found.add("tensor", name, level="ignored")
    if len(ignored) > _SHOWN:
        found.add("tensor", f"and {len(ignored) - _SHOWN} more", level="ignored")


def _tell_embedding(found: Diagnosis, checkpoint: Checkpoint, spec: EmbeddingSpec | None) -> None:
    if spec is None:
        has_heads = (checkpoint.directory / layout.HEADS).is_dir()
        if checkpoint.task in ("embedding", "similarity") or (checkpoint.task is None and not has_heads):
            settle = "for vectors pass pooling=mean or pooling=cls as its model card says"
            found.add("pooling", "nothing says how vectors are pooled", level="warning", settle=settle)
        return
    source = layout.SETTINGS if "pooling" in checkpoint.settings else f"{layout.MODULES} and what it lists"
    tokens = "prompt included" if spec.pooling.include_prompt else "prompt left out"
    after = [f"{module.kind} {module.in_features} to {module.out_features}" for module in spec.modules]
    steps = ", then ".join(["+".join(spec.pooling.modes), *after, *(["unit length"] if spec.normalize else [])])
    width = found.attempt("pooling", lambda: checkpoint.embedding_width(spec))
    found.add("pooling", f"{steps}; {tokens}; {width} values", source)
    found.attempt("pooling", checkpoint.load_embedding_modules)
    if spec.similarity is not None:
        found.add("similarity", spec.similarity, layout.SENTENCE_CONFIG)
    for name, text in spec.prompts.items():
        default = " (default)" if name == spec.default_prompt_name else ""
        found.add("prompt", f"{name}{default}: {text!r}", layout.SENTENCE_CONFIG)


def _tell_heads(found: Diagnosis, checkpoint: Checkpoint) -> None:
    heads, config = checkpoint.heads, checkpoint.config
    announced = HEAD_OF_TASK[checkpoint.task] if checkpoint.task else None
    whole: list[HeadKind] = []
    for kind in get_args(HeadKind):
        missing = found.attempt("head", partial(heads.missing, kind))
        errors = len(found.errors)
        if missing == []:
            found.attempt("head", partial(heads.check, kind))
            whole += [kind] if len(found.errors) == errors else []
        elif kind == announced and missing:
            says = f"{', '.join(missing)} missing, {checkpoint.task} needs them"
            found.add("head", says, level="error", settle="choose a checkpoint that was trained for this")
    for kind in whole:
        outputs = heads.num_outputs(kind)
        found.add("head", f"{kind}, {outputs} outputs; serves {_served(kind, outputs, config)}")
    if "masked-lm" in whole:
        _tell_decoder(found, checkpoint)
    if announced in LABELLED and announced in whole:
        shown = config.id2label[:_SHOWN]
        names = ", ".join(shown) + (", ..." if len(config.id2label) > _SHOWN else "")
        found.add("labels", f"{len(config.id2label)}: {names}", layout.CONFIG)
    if announced == "sequence-classification" and announced in whole:
        _tell_activation(found, checkpoint, heads.num_outputs(announced))
    if checkpoint.calibration is not None:
        _tell_calibration(found, checkpoint.calibration)


def _tell_decoder(found: Diagnosis, checkpoint: Checkpoint) -> None:
    own, word = checkpoint.heads.own_decoder(), checkpoint.heads.word
    if own is None or word is None:
        found.add("masked-LM head", "tied to the word embeddings")
    elif own.shape == word.shape and torch.equal(own.load(), word.load()):
        found.add("masked-LM head", "a matrix of its own, equal to the word embeddings")
    elif checkpoint.config.extra.get("tie_word_embeddings", True):
        says = "a matrix of its own, though tie_word_embeddings is not false; its own is used"
        found.add("masked-LM head", says, layout.CONFIG, level="warning")
    else:
        found.add("masked-LM head", "a matrix of its own", layout.CONFIG)


def _served(kind: HeadKind, outputs: int, config: EncoderConfig) -> str:
    """Tasks that a head can do; some ask for certain outputs."""
    if config.is_decoder:
        return "causal-lm" if kind == "masked-lm" else "nothing, its encoder is a decoder"
    unfit: set[TaskKind] = {"causal-lm"}
    if outputs != 1:
        unfit.add("rerank")
    if not any(label.lower().startswith("entail") for label in config.id2label):
        unfit.add("zero-shot-classification")
    return ", ".join(task for task, needed in HEAD_OF_TASK.items() if needed == kind and task not in unfit)


def _tell_activation(found: Diagnosis, checkpoint: Checkpoint, outputs: int) -> None:
    """What turns the logits of a sequence head into scores."""
    stated = checkpoint.settings.get("activation_fn")
    problem = checkpoint.config.problem_type
    if problem is not None:
        found.add("problem type", problem, layout.CONFIG)
    if stated is not None:
        in_config = activation_of_config(checkpoint.config.extra) == stated
        found.add("activation", f"{stated}, of a cross-encoder", layout.CONFIG if in_config else layout.SENTENCE_CONFIG)
    elif problem is None and outputs == 1:
        found.add("activation", "sigmoid, as nothing else is stated", settle="problem_type=regression for a number")
    elif problem is None:
        settle = "problem_type=multi_label_classification if several labels can be right"
        found.add("activation", "softmax, as nothing else is stated", settle=settle)


def _tell_calibration(found: Diagnosis, calibration: HeadCalibration) -> None:
    """How the scores of a sequence head were made fit."""
    parts = [f"temperature {calibration.temperature:.3g} before {calibration.activation}"]
    if calibration.thresholds:
        scores = calibration.thresholds.values()
        parts.append(f"thresholds of {len(scores)} labels from {min(scores):.3f} to {max(scores):.3f}")
    if calibration.language_thresholds:
        parts.append(f"own ones for {len(calibration.language_thresholds)} languages; name a --language-column")
    if calibration.records is not None:
        parts.append(f"fitted on {calibration.records:,} records")
    found.add("calibration", ", ".join(parts), layout.SETTINGS)


def _tell_hashes(found: Diagnosis, checkpoint: Checkpoint) -> None:
    kind = HEAD_OF_TASK[checkpoint.task] or "embedding" if checkpoint.task else None
    digests = {"encoder": checkpoint.encoder_sha256}
    if kind == "embedding" or (kind is not None and not checkpoint.heads.missing(kind)):
        digests["head"] = partial(checkpoint.head_sha256, kind)
    for topic, digest in digests.items():
        value = found.attempt("hash", digest)
        if value is not None:
            found.add(f"sha256 of the {topic}", value)
