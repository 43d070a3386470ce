"""The task heads that a model directory holds: which they are, how large, and their weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from xlmr_core.checkpoint.assembly import FileNames, content_sha256, fill, misfits, on_meta
from xlmr_core.checkpoint.keys import LAST_MODULE, HeadKind, all_head_file_names, decoder_file_names, head_file_names
from xlmr_core.checkpoint.weights import StoredTensor, open_file
from xlmr_core.config import EncoderConfig
from xlmr_core.encoder import Encoder
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import Head, MaskedLMHead, SequenceHead, TokenHead, lm_activation

WAY_OUT = "choose a checkpoint that was trained for this, or download or save it again"

HEAD_CLASSES: Mapping[HeadKind, type[Head]] = {
    "sequence-classification": SequenceHead,
    "token-classification": TokenHead,
    "masked-lm": MaskedLMHead,
    "question-answering": TokenHead,
    "multiple-choice": SequenceHead,
    "sparse": TokenHead,
    "multi-vector": TokenHead,
}
# Heads whose outputs have names.
LABELLED: tuple[HeadKind, ...] = ("sequence-classification", "token-classification")
# Where bge-m3 keeps two of its heads: each the state dict of one linear layer.
_OWN_FILES: Mapping[HeadKind, str] = {"sparse": "sparse_linear", "multi-vector": "colbert_linear"}


@dataclass(frozen=True, slots=True)
class StoredHeads:
    """Task heads as files hold them.

    Attributes:
        spec: The checkpoint, for messages.
        config: Shape of the encoder.
        directory: Where files of single heads are.
        tensors: Everything stored besides the encoder, by name.
        word: The word embedding table, which most masked-LM heads use too; None when it is missing.
    """

    spec: str
    config: EncoderConfig
    directory: Path
    tensors: Mapping[str, StoredTensor]
    word: StoredTensor | None

    def load(self, kind: HeadKind) -> Head:
        """A head, float32, in evaluation mode.

        Raises:
            CheckpointError: There is none of that kind, or it does not fit the encoder.
        """
        self.check(kind)
        return fill(self._new(kind), self._find(kind), self._file_names(kind)).eval()

    def check(self, kind: HeadKind) -> None:
        """Raises CheckpointError where `load` would; reads shapes only."""
        problems = misfits(self._new(kind), self._find(kind), self._file_names(kind))
        refuse(f"the {kind} head of {self.spec}", problems)

    def num_outputs(self, kind: HeadKind) -> int:
        """Outputs of a head, from the shape of its weights.

        Raises:
            CheckpointError: There is no such head.
        """
        (name,) = head_file_names(kind, f"{LAST_MODULE[kind]}.weight", self.config.model_type)
        shape = self._find(kind)[name].shape
        if len(shape) != 2:
            raise CheckpointError(f"{name} of {self.spec} has the shape {shape}, it must be a matrix; {WAY_OUT}")
        return shape[0]

    def sha256(self, kind: HeadKind) -> str:
        """Content of a head; that of a masked-LM head covers the embedding table where it is used.

        Raises:
            CheckpointError: There is no such head.
        """
        facts: dict[str, object] = {"head": kind}
        if kind == "masked-lm":
            facts["layer_norm_eps"] = self.config.layer_norm_eps
            facts["activation"] = lm_activation(self.config)
        return content_sha256(facts, self._find(kind).items())

    def missing(self, kind: HeadKind) -> list[str]:
        """Names of the tensors that a head needs and the files lack."""
        tensors = self._candidates(kind)
        return [name for name in self._names(kind) if name not in tensors]

    def stored_names(self, kind: HeadKind) -> set[str]:
        """Names of the tensors among `tensors` that a head reads."""
        either_bias = decoder_file_names(self.config.model_type) if kind == "masked-lm" else ()
        return {*self._names(kind), *either_bias} & self.tensors.keys()

    def own_decoder(self) -> StoredTensor | None:
        """The matrix of a masked-LM head that does not use the word embedding table; None for one that does."""
        return self.tensors.get(decoder_file_names(self.config.model_type)[0])

    def _file_names(self, kind: HeadKind) -> FileNames:
        return partial(head_file_names, kind, model_type=self.config.model_type)

    def _names(self, kind: HeadKind) -> tuple[str, ...]:
        return all_head_file_names(kind, self.config.model_type)

    def _new(self, kind: HeadKind) -> Head:
        return on_meta(lambda: new_head(kind, self.config, self.num_outputs(kind)))

    def _find(self, kind: HeadKind) -> dict[str, StoredTensor]:
        """The tensors of a head, all there."""
        tensors = self._candidates(kind)
        missing = [name for name in self._names(kind) if name not in tensors]
        if missing:
            names = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
            raise CheckpointError(f"{self.spec} has no {kind} head, {names}; {WAY_OUT}")
        return {name: tensors[name] for name in self._names(kind)}

    def _candidates(self, kind: HeadKind) -> Mapping[str, StoredTensor]:
        """Stored tensors, with those that stand elsewhere or under another name."""
        if kind == "masked-lm":
            matrix, bias, usual_bias = decoder_file_names(self.config.model_type)
            elsewhere = {matrix: self.word, bias: self.tensors.get(usual_bias)}
            # A matrix of its own is kept, as transformers does it, whatever `tie_word_embeddings` says.
            return {name: stored for name, stored in elsewhere.items() if stored} | dict(self.tensors)
        stem = _OWN_FILES.get(kind)
        if stem and (self.directory / f"{stem}.pt").is_file():
            own = open_file(self.directory / f"{stem}.pt")
            return {f"{stem}.{name}": stored for name, stored in own.items()} | dict(self.tensors)
        return self.tensors


def new_head(kind: HeadKind, config: EncoderConfig, num_outputs: int) -> Head:
    """A head with fresh weights, and dropout where transformers' class for it has some."""
    match kind:
        case "sequence-classification" if config.model_type == "bert":
            # Its first layer is BERT's pooler, which drops nothing.
            return SequenceHead(config, num_outputs, input_dropout=0.0)
        case "multiple-choice":
            return SequenceHead(config, num_outputs, input_dropout=0.0, dropout=config.hidden_dropout_prob)
        case "question-answering" | "sparse" | "multi-vector":
            return TokenHead(config, num_outputs, dropout=0.0)
        case _:
            return HEAD_CLASSES[kind](config, num_outputs)


def tie(head: Head, encoder: Encoder) -> None:
    """Makes a masked-LM head project with the encoder's word embedding table, one parameter that both train.

    Its gradient is one table too: that of the rows that were looked up is added to the projection's as rows, where
    autograd would fill a second table with zeros for it (770 MB in XLM-R base). Other heads have no such projection and
    stay as they are.
    """
    if isinstance(head, MaskedLMHead):
        table = encoder.embeddings.word_embeddings
        assert head.decoder.weight.shape == table.weight.shape
        head.decoder.weight = table.weight
        if not table.sparse:
            table.sparse = True
            table.weight.register_post_accumulate_grad_hook(_fill_in)  # type: ignore[no-untyped-call]


def _fill_in(parameter: Tensor) -> None:
    """A gradient of rows alone, where a batch had no target, becomes a whole one: optimisers take no other."""
    if parameter.grad is not None and parameter.grad.is_sparse:
        parameter.grad = parameter.grad.to_dense()


def refuse(what: str, problems: list[str]) -> None:
    """Raises with every problem, at most 40 of them in words."""
    if problems:
        lines = "\n".join(f"  {line}" for line in problems[:40])
        more = f"\n  and {len(problems) - 40} more" if len(problems) > 40 else ""
        raise CheckpointError(f"{what} does not fit its config; {WAY_OUT}:\n{lines}{more}")
