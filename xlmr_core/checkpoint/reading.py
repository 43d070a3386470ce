"""`Checkpoint`: what a model directory says, checked at opening; its weights when they are asked for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from torch import nn

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.assembly import content_sha256, fill, misfits, on_meta
from xlmr_core.checkpoint.embedding import (
    EmbeddingSpec,
    ModuleSpec,
    activation_of_config,
    read_sentence_layout,
)
from xlmr_core.checkpoint.keys import LABEL_ROWS, HeadKind, encoder_file_names, head_file_names
from xlmr_core.checkpoint.location import Location, download_command, locate
from xlmr_core.checkpoint.weights import StoredTensor, open_weights, sort_tensors
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import SequenceClassificationHead, TokenClassificationHead

TaskKind = Literal["sequence-classification", "token-classification", "embedding"]
_SUFFIXES: dict[str, TaskKind] = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
}
# What decides over the computation besides the weights; a head's labels or dropout do not.
_COMPUTED_FROM = ("num_attention_heads", "hidden_act", "layer_norm_eps", "pad_token_id")
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
        max_length: Longest usable window, tokens, special tokens included.
        embedding: How it makes sentence vectors; None when nothing says so.
        report: What was read and what was not.
    """

    def __init__(self, spec: str, location: Location) -> None:
        self.spec = spec
        self.resolved = location.spec
        self.directory = location.directory
        self.revision = location.revision
        sentence = read_sentence_layout(self.directory)
        self.tokenizer_directory = sentence.encoder_directory
        self.config = XLMRobertaConfig.from_file(sentence.encoder_directory / layout.CONFIG)
        self._stored = sort_tensors(open_weights(sentence.encoder_directory))
        self._head_tensors = self._stored.others
        settings = layout.read_json_if_any(self.directory / layout.SETTINGS)
        if location.head is not None:
            # A head inherits the directory's limit; task, pooling and all else are its own.
            settings = {key: settings[key] for key in settings.keys() & {"max_length"}}
            settings |= self._open_head(location.head)
        elif activation := sentence.activation or activation_of_config(self.config.extra):
            settings.setdefault("activation_fn", activation)
        self.settings: Mapping[str, Any] = MappingProxyType(settings)
        own = EmbeddingSpec.from_settings(settings, source=str(self.directory / layout.SETTINGS))
        self.embedding = own or (sentence.embedding if location.head is None else None)
        self.task = self._find_task()
        self.max_length = self._find_max_length(sentence.max_length)
        self.report = self._check()

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

    def load_sequence_head(self) -> SequenceClassificationHead:
        """The sequence classification head, float32.

        Raises:
            CheckpointError: The checkpoint has none, or it does not fit.
        """
        return cast(SequenceClassificationHead, self._load_head("sequence-classification"))

    def load_token_head(self) -> TokenClassificationHead:
        """The token classification head, float32.

        Raises:
            CheckpointError: The checkpoint has none, or it does not fit.
        """
        return cast(TokenClassificationHead, self._load_head("token-classification"))

    def load_embedding_modules(self) -> nn.Sequential:
        """Everything between pooling and the final Normalize, float32; empty for most models.

        Raises:
            CheckpointError: Weights of a module are missing or do not fit.
        """
        modules = self.embedding.modules if self.embedding else ()
        return nn.Sequential(*(self._load_module(module) for module in modules)).eval()

    def num_labels(self, head: HeadKind) -> int:
        """Outputs of a head, from the shape of its weights.

        Raises:
            CheckpointError: The checkpoint has no such head.
        """
        stored = self._head_tensors.get(LABEL_ROWS[head])
        if stored is None or len(stored.shape) != 2:
            raise CheckpointError(f"{self.spec} has no {head} head, {LABEL_ROWS[head]} is missing; {self._way_out()}")
        return stored.shape[0]

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
            return content_sha256({"head": kind}, self._used_head_tensors(cast(HeadKind, kind)))
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

    def _open_head(self, name: str) -> dict[str, Any]:
        """Takes labels and weights from one head's directory; returns its settings."""
        folder = self.directory / layout.HEADS / name
        if not folder.is_dir():
            heads = sorted(path.name for path in folder.parent.glob("*/"))
            rule = f"it has {', '.join(heads) or 'no heads'}; correct the name behind #"
            raise CheckpointError(f"{self.spec} names the head {name!r}, {rule}")
        encoder = {key: value for key, value in self.config.to_dict().items() if key not in _HEAD_CONFIG}
        head = layout.read_json_if_any(folder / layout.CONFIG)
        head = {key: value for key, value in head.items() if key in _HEAD_CONFIG}
        self.config = XLMRobertaConfig.from_dict(encoder | head, source=str(folder / layout.CONFIG))
        has_weights = (folder / layout.SAFETENSORS).is_file()
        self._head_tensors = open_weights(folder).tensors if has_weights else {}
        return layout.read_json_if_any(folder / layout.SETTINGS)

    def _find_task(self) -> TaskKind | None:
        """What the directory says it is for: xlmr.json, then pooling, then the class it was saved from."""
        said = self.settings.get("task")
        if said is not None and said not in get_args(TaskKind):
            rule = f"known are {', '.join(get_args(TaskKind))}; correct {layout.SETTINGS}"
            raise CheckpointError(f"{self.spec} is for the task {said!r}, {rule}")
        if said is not None or self.embedding is not None:
            return cast(TaskKind, said or "embedding")
        suffixes = (suffix for name in self.config.architectures for suffix in _SUFFIXES if name.endswith(suffix))
        return next((_SUFFIXES[suffix] for suffix in suffixes), None)

    def _find_max_length(self, sentence_limit: int | None) -> int:
        """The smallest limit that any file states, and never more than there are positions."""
        own = self.settings.get("max_length")
        if own is not None and (not isinstance(own, int) or own < 8):
            raise CheckpointError(f"{self.spec}: max_length {own!r} in {layout.SETTINGS}, it must be at least 8")
        stated = layout.read_json_if_any(self.tokenizer_directory / "tokenizer_config.json").get("model_max_length")
        tokenizer_limit = int(stated) if isinstance(stated, int | float) and 0 < stated < _NO_LIMIT else None
        limits = [own, sentence_limit, tokenizer_limit, self.config.max_tokens]
        return min(limit for limit in limits if limit is not None)

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
        self._refuse("the encoder", problems)
        head = cast(HeadKind, self.task) if self.task in get_args(HeadKind) else None
        if head is not None:
            warnings += self._label_warnings(self.num_labels(head))
        used = (
            {part for name in self._meta_head(head).state_dict() for part in head_file_names(head, name)}
            if head
            else set()
        )
        return CheckpointReport(
            files=self._stored.files,
            prefix=self._stored.prefix,
            read=(*sorted(known), *sorted(used)),
            ignored=(*self._stored.buffers, *sorted(self._stored.others.keys() - used)),
            warnings=tuple(warnings),
        )

    def _label_warnings(self, count: int) -> list[str]:
        labels = self.config.id2label
        if labels and len(labels) != count:
            return [f"id2label has {len(labels)} names, the head has {count} outputs; pass labels="]
        if not labels or any(label == f"LABEL_{index}" for index, label in enumerate(labels)):
            return [f"the {count} outputs have no real names (LABEL_0 ...); pass labels= as the model card says"]
        return []

    def _meta_head(self, head: HeadKind) -> SequenceClassificationHead | TokenClassificationHead:
        kind = SequenceClassificationHead if head == "sequence-classification" else TokenClassificationHead
        return on_meta(lambda: kind(self.config, self.num_labels(head)))

    def _load_head(self, head: HeadKind) -> SequenceClassificationHead | TokenClassificationHead:
        module = self._meta_head(head)

        def file_names(name: str) -> tuple[str, ...]:
            return head_file_names(head, name)

        self._refuse(f"the {head} head", misfits(module, self._head_tensors, file_names))
        return fill(module, self._head_tensors, file_names).eval()

    def _used_head_tensors(self, head: HeadKind) -> list[tuple[str, StoredTensor]]:
        names = [part for name in self._meta_head(head).state_dict() for part in head_file_names(head, name)]
        self._refuse(f"the {head} head", [f"{name} is missing" for name in names if name not in self._head_tensors])
        return [(name, self._head_tensors[name]) for name in names]

    def _load_module(self, spec: ModuleSpec) -> nn.Module:
        module, tensors = spec.build(), _module_tensors(spec)
        self._refuse(f"module {spec.directory}", misfits(module, tensors, _same_name))
        return fill(module, tensors, _same_name)

    def _refuse(self, what: str, problems: list[str]) -> None:
        """Raises with every problem, at most 40 of them in words."""
        if problems:
            lines = "\n".join(f"  {line}" for line in problems[:40])
            more = f"\n  and {len(problems) - 40} more" if len(problems) > 40 else ""
            raise CheckpointError(f"{what} of {self.spec} does not fit its config; {self._way_out()}:\n{lines}{more}")

    def _way_out(self) -> str:
        return "choose a checkpoint that was trained for this, or download or save it again"


def _module_tensors(spec: ModuleSpec) -> Mapping[str, StoredTensor]:
    return open_weights(spec.directory).tensors if spec.directory else {}


def _module_facts(spec: ModuleSpec) -> dict[str, object]:
    return {key: value for key, value in asdict(spec).items() if key != "directory"}


def _same_name(name: str) -> tuple[str, ...]:
    return (name,)
