"""`Checkpoint`: what a model directory says, checked at opening; its weights when they are asked for."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_args

from torch import nn

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.adapter import read_adapter
from xlmr_core.checkpoint.assembly import content_sha256, fill, misfits, on_meta
from xlmr_core.checkpoint.calibration import CALIBRATION, HeadCalibration
from xlmr_core.checkpoint.embedding import (
    EmbeddingSpec,
    ModuleSpec,
    activation_of_config,
    read_sentence_layout,
)
from xlmr_core.checkpoint.keys import HeadKind, encoder_file_names
from xlmr_core.checkpoint.location import Location, download_command, locate
from xlmr_core.checkpoint.purpose import HEAD_OF_TASK, TaskKind, task_of_classes
from xlmr_core.checkpoint.task_heads import LABELLED, StoredHeads, refuse, tie
from xlmr_core.checkpoint.weights import StoredTensor, open_weights, sort_tensors
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import Head

# What decides over the computation besides the weights; a head's labels or dropout do not.
_COMPUTED_FROM = ("num_attention_heads", "hidden_act", "layer_norm_eps", "first_position")
# What a head's own config may say; the encoder's shape comes from the directory's config.
_HEAD_CONFIG = ("id2label", "label2id", "problem_type", "architectures", "classifier_dropout", "num_labels")
# Written by transformers where it knows no limit.
_NO_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """What was found in a model directory.

    Attributes:
        files: Weight files.
        prefix: What stands before every encoder name in them.
        read: Names of the tensors that the encoder and the heads use.
        ignored: Names of those that nothing here uses: other heads, poolers, buffers.
        warnings: What is odd and still usable.
    """

    files: tuple[Path, ...]
    prefix: str
    read: tuple[str, ...]
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]


class Checkpoint:
    """A model directory, or one head of it.

    Attributes:
        spec: What the user typed.
        resolved: The same model, named so that every worker finds these very weights.
        directory: The model directory.
        tokenizer_directory: Where its tokenizer files are.
        revision: Resolved commit of a Hub checkpoint, else None.
        config: Shape of the encoder, labels of the head. Sizes of the vocabulary are those of the weights.
        settings: What `xlmr.json` says, and `activation_fn` of a sentence-transformers cross-encoder.
        task: What it was made for; None when only an encoder is there and the caller must say.
        task_source: The file that says so.
        max_length: Longest usable window, tokens, special tokens included: the smallest of `length_limits`.
        length_limits: Every limit that is stated, by what states it.
        heads: Task heads that the files hold.
        adapter: The LoRA adapter that the directory is, on its base; None for a model of its own.
        embedding: How it makes sentence vectors; None when nothing says so.
        calibration: How scores of its sequence classification head are to be read; None when nothing says so.
        report: What was read and what was not.
    """

    def __init__(self, spec: str, location: Location) -> None:
        self.spec = spec
        self.resolved = location.spec
        self.directory = location.directory
        self.revision = location.revision
        self.adapter = read_adapter(self.directory)
        home = self.adapter.base.directory if self.adapter else self.directory
        sentence = read_sentence_layout(home)
        self.tokenizer_directory = directory_of_tokenizer(self.directory, sentence.encoder_directory)
        self.config = self._read_config(sentence.encoder_directory)
        if self.config.model_type == "bert":
            _refuse_word_pieces(self.tokenizer_directory)
        self._stored = sort_tensors(open_weights(sentence.encoder_directory))
        if self.adapter:
            self._stored = self.adapter.apply(self._stored)
        head_tensors, head_directory = self._stored.others, self.directory
        settings = layout.read_json_if_any(self.directory / layout.SETTINGS)
        if location.head is not None:
            # A head inherits the directory's limit; task, pooling and all else are its own.
            settings = {key: settings[key] for key in settings.keys() & {"max_length"}}
            head_directory = self._find_head(location.head)
            self.config, head_tensors = self._read_head(head_directory)
            settings |= layout.read_json_if_any(head_directory / layout.SETTINGS)
        elif activation := sentence.activation or activation_of_config(self.config.extra):
            settings.setdefault("activation_fn", activation)
        self.settings: Mapping[str, Any] = MappingProxyType(settings)
        own = EmbeddingSpec.from_settings(settings, source=str(self.directory / layout.SETTINGS))
        self.embedding = own or (sentence.embedding if location.head is None else None)
        self.task, self.task_source = self._find_task()
        self.length_limits = self._find_length_limits(sentence.max_length)
        self.max_length = min(self.length_limits.values())
        word = self._stored.encoder.get("embeddings.word_embeddings.weight")
        self.heads = StoredHeads(spec, self.config, head_directory, head_tensors, word)
        self.calibration = self._read_calibration(head_directory / layout.SETTINGS)
        self.report = self._check()

    def _read_config(self, encoder_directory: Path) -> EncoderConfig:
        """Shape of the encoder; an adapter's own config, if it has one, names the labels of its head."""
        config = EncoderConfig.from_file(encoder_directory / layout.CONFIG)
        if self.adapter is None:
            return config
        own = layout.read_json_if_any(self.directory / layout.CONFIG)
        shape = {key: value for key, value in config.to_dict().items() if not (own and key in _HEAD_CONFIG)}
        head = {key: value for key, value in own.items() if key in _HEAD_CONFIG}
        return EncoderConfig.from_dict(shape | head, source=str(self.directory / layout.CONFIG))

    @classmethod
    def open(cls, spec: str) -> "Checkpoint":
        """Finds a model, reads its small files and checks that its encoder fits; loads no weights.

        Args:
            spec: A directory, `mini` or a Hub id `org/name[@revision]`; `#head` behind it picks one head.

        Raises:
            CheckpointError: It cannot be found or used; all that is wrong with its weights at once.
        """
        location = locate(spec)
        try:
            return cls(spec, location)
        except CheckpointError as error:
            if location.repository is None:
                raise
            command = download_command(location.repository, location.revision)
            raise CheckpointError(f"{error}\n  it came from the cache of the Hub; `{command}` completes it") from None

    def load_encoder(self) -> Encoder:
        """The encoder, float32, trainable, in evaluation mode."""
        encoder = on_meta(lambda: Encoder(self.config))
        return fill(encoder, self._stored.encoder, encoder_file_names).eval()

    def load_head(self, kind: HeadKind, encoder: Encoder | None = None) -> Head:
        """A task head, float32, trainable, in evaluation mode.

        Args:
            kind: Which.
            encoder: Trained with it: a masked-LM head then shares its table, where the files do (see `tie`).

        Raises:
            CheckpointError: The checkpoint has none of that kind, or it does not fit.
        """
        head = self.heads.load(kind)
        if encoder is not None and self.heads.own_decoder() is None:
            tie(head, encoder)
        return head

    def load_embedding_modules(self) -> nn.Sequential:
        """Everything between pooling and the final Normalize, float32; empty for most models.

        Raises:
            CheckpointError: Weights of a module are missing or do not fit.
        """
        modules = self.embedding.modules if self.embedding else ()
        return nn.Sequential(*(self._load_module(module) for module in modules)).eval()

    def num_outputs(self, kind: HeadKind) -> int:
        """Outputs of a head, from the shape of its weights; for a masked-LM head the tokens of the vocabulary.

        Raises:
            CheckpointError: The checkpoint has no such head.
        """
        return self.heads.num_outputs(kind)

    def own_labels(self, kind: HeadKind) -> tuple[str, ...]:
        """Names of a head's outputs as the config has them, else `LABEL_0`, `LABEL_1`, ... as transformers calls them.

        Raises:
            CheckpointError: The checkpoint has no such head.
        """
        count = self.num_outputs(kind)
        return self.config.id2label or tuple(f"LABEL_{index}" for index in range(count))

    def embedding_width(self, spec: EmbeddingSpec) -> int:
        """Values of a vector made as `spec` says.

        Raises:
            CheckpointError: A module's input is not as wide as what comes before it.
        """
        width = self.config.hidden_size * len(spec.pooling.modes)
        for module in spec.modules:
            if module.in_features and module.in_features != width:
                rule = f"its {module.kind} module takes {module.in_features}; use its own pooling"
                raise CheckpointError(f"{self.spec} pools to {width} values, {rule}")
            width = module.out_features or width
        return width

    def encoder_sha256(self) -> str:
        """Content of the encoder: equal exactly where hidden states are. Reads all weights once."""
        return self._encoder_digest

    def head_sha256(self, kind: str) -> str:
        """Content of what follows the encoder: a head of that kind, or pooling and the modules behind it.

        Raises:
            CheckpointError: The checkpoint has no such head.
        """
        if kind in get_args(HeadKind):
            return self.heads.sha256(cast(HeadKind, kind))
        spec = self.embedding or EmbeddingSpec()
        facts = {"head": kind, "pooling": spec.pooling.modes, "include_prompt": spec.pooling.include_prompt}
        facts |= {"normalize": spec.normalize, "modules": [_module_facts(module) for module in spec.modules]}
        weights = [
            (f"{number}.{name}", stored)
            for number, module in enumerate(spec.modules)
            for name, stored in _module_tensors(module).items()
        ]
        return content_sha256(facts, weights)

    @cached_property
    def _encoder_digest(self) -> str:
        facts = {name: getattr(self.config, name) for name in _COMPUTED_FROM}
        return content_sha256(facts, self._stored.encoder.items())

    def _find_head(self, name: str) -> Path:
        """Directory of one of several heads."""
        folder = self.directory / layout.HEADS / name
        if not folder.is_dir():
            heads = sorted(path.name for path in folder.parent.glob("*/"))
            rule = f"it has {', '.join(heads) or 'no heads'}; correct the name behind #"
            raise CheckpointError(f"{self.spec} names the head {name!r}, {rule}")
        return folder

    def _read_head(self, folder: Path) -> tuple[EncoderConfig, Mapping[str, StoredTensor]]:
        """Labels and weights from one head's directory."""
        encoder = {key: value for key, value in self.config.to_dict().items() if key not in _HEAD_CONFIG}
        head = layout.read_json_if_any(folder / layout.CONFIG)
        head = {key: value for key, value in head.items() if key in _HEAD_CONFIG}
        config = EncoderConfig.from_dict(encoder | head, source=str(folder / layout.CONFIG))
        has_weights = (folder / layout.SAFETENSORS).is_file()
        return config, open_weights(folder).tensors if has_weights else {}

    def _find_task(self) -> tuple[TaskKind | None, str | None]:
        """What the directory says it is for, and where: xlmr.json, an adapter, pooling, the class it was saved from."""
        said = self.settings.get("task")
        if said is not None and said not in get_args(TaskKind):
            rule = f"known are {', '.join(get_args(TaskKind))}; correct {layout.SETTINGS}"
            raise CheckpointError(f"{self.spec} is for the task {said!r}, {rule}")
        saved_from = task_of_classes(self.config.architectures)
        answers: list[tuple[TaskKind | None, str]] = [
            (cast(TaskKind | None, said), layout.SETTINGS),
            (self.adapter.task if self.adapter else None, layout.ADAPTER_CONFIG),
            (
                "embedding" if self.embedding else None,
                layout.SETTINGS if "pooling" in self.settings else layout.MODULES,
            ),
            (saved_from, layout.CONFIG),
        ]
        return next((answer for answer in answers if answer[0]), (None, None))

    def _read_calibration(self, source: Path) -> HeadCalibration | None:
        """What was fitted for the scores of the sequence classification head."""
        if CALIBRATION not in self.settings:
            return None
        labels, count = self.own_labels("sequence-classification"), self.num_outputs("sequence-classification")
        if len(labels) != count:
            rule = f"id2label has {len(labels)} names, the head has {count} outputs; correct {layout.CONFIG}"
            raise CheckpointError(f"{source} has a {CALIBRATION}, {rule}")
        return HeadCalibration.from_settings(self.settings[CALIBRATION], labels, source=str(source))

    def _find_length_limits(self, sentence_limit: int | None) -> dict[str, int]:
        """Every limit that a file states, by what states it; there are never more tokens than positions."""
        own = self.settings.get("max_length")
        if own is not None and (not isinstance(own, int) or own < 8):
            raise CheckpointError(f"{self.spec}: max_length {own!r} in {layout.SETTINGS}, it must be at least 8")
        stated = layout.read_json_if_any(self.tokenizer_directory / "tokenizer_config.json").get("model_max_length")
        tokenizer_limit = int(stated) if isinstance(stated, int | float) and 0 < stated < _NO_LIMIT else None
        limits = {
            f"max_length in {layout.SETTINGS}": own,
            "max_seq_length of sentence-transformers": sentence_limit,
            "model_max_length in tokenizer_config.json": tokenizer_limit,
            f"positions in {layout.CONFIG}": self.config.max_tokens,
        }
        return {source: limit for source, limit in limits.items() if limit is not None}

    def _check(self) -> CheckpointReport:
        """Holds config and encoder weights against each other; the vocabulary's size is the weights'."""
        warnings = []
        words = self._stored.encoder.get("embeddings.word_embeddings.weight")
        if words is not None and len(words.shape) == 2 and words.shape[0] != self.config.vocab_size:
            warnings.append(
                f"vocab_size {self.config.vocab_size} in the config, the weights have {words.shape[0]} rows"
            )
            self.config = replace(self.config, vocab_size=words.shape[0])
        encoder = on_meta(lambda: Encoder(self.config))
        known = {part for name in encoder.state_dict() for part in encoder_file_names(name)}
        problems = misfits(encoder, self._stored.encoder, encoder_file_names)
        unused = sorted(self._stored.encoder.keys() - known)
        problems += [f"{name} is in the file, the config leaves no place for it" for name in unused]
        refuse(f"the encoder of {self.spec}", problems)
        head = HEAD_OF_TASK[self.task] if self.task else None
        warnings += self._head_warnings(head) if head else []
        used = self.heads.stored_names(head) if head else set()
        return CheckpointReport(
            files=self._stored.files,
            prefix=self._stored.prefix,
            read=(*sorted(known), *sorted(used)),
            ignored=(*self._stored.buffers, *sorted(self._stored.others.keys() - used)),
            warnings=tuple(warnings),
        )

    def _head_warnings(self, head: HeadKind) -> list[str]:
        """What is odd about the head that the directory says it has; without it the encoder is still of use."""
        missing = self.heads.missing(head)
        if missing:
            return [f"it is said to be for {self.task}, {', '.join(missing)} is missing; only its encoder can be used"]
        return self._label_warnings(self.num_outputs(head)) if head in LABELLED else []

    def _label_warnings(self, count: int) -> list[str]:
        labels = self.config.id2label
        if labels and len(labels) != count:
            return [f"id2label has {len(labels)} names, the head has {count} outputs; pass labels="]
        if not labels or any(label == f"LABEL_{index}" for index, label in enumerate(labels)):
            return [f"the {count} outputs have no real names (LABEL_0 ...); pass labels= as the model card says"]
        return []

    def _load_module(self, spec: ModuleSpec) -> nn.Module:
        module, tensors = spec.build(), _module_tensors(spec)
        refuse(f"module {spec.directory} of {self.spec}", misfits(module, tensors, _same_name))
        return fill(module, tensors, _same_name)


def directory_of_tokenizer(directory: Path, encoder_directory: Path) -> Path:
    """Where tokenizer files are: beside an adapter, if it has some, else with the encoder."""
    has_own = any((directory / name).is_file() for name in layout.TOKENIZER_KINDS)
    is_adapter = (directory / layout.ADAPTER_CONFIG).is_file()
    return directory if is_adapter and has_own else encoder_directory


def _refuse_word_pieces(directory: Path) -> None:
    """Raises for a BERT model with BERT's own tokenizer.

    Its vocabulary may be large, so the file is searched and not parsed; quotes inside strings of JSON are escaped.
    """
    whole = directory / "tokenizer.json"
    content = whole.read_bytes() if whole.is_file() and whole.stat().st_size <= layout.MAX_JSON_BYTES else b""
    others = any((directory / name).is_file() for name in layout.TOKENIZER_KINDS)
    only_vocabulary = (directory / "vocab.txt").is_file() and not others
    if only_vocabulary or re.search(rb'"type"\s*:\s*"WordPiece"', content):
        raise CheckpointError(
            f"{directory} is a BERT model (model_type 'bert') with a WordPiece tokenizer, its encoder runs here with "
            "XLM-R's tokenizer only (as in multilingual-e5-small); choose an XLM-R model"
        )


def _module_tensors(spec: ModuleSpec) -> Mapping[str, StoredTensor]:
    return open_weights(spec.directory).tensors if spec.directory else {}


def _module_facts(spec: ModuleSpec) -> dict[str, object]:
    return {key: value for key, value in asdict(spec).items() if key != "directory"}


def _same_name(name: str) -> tuple[str, ...]:
    return (name,)
