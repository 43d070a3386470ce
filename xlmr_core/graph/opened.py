"""Checkpoints and tokenizers that a plan names, each opened once however often it is named."""

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.tokenization import Tokenizer


class OpenModels:
    """What was opened so far; whoever resolves, tokenises and computes in one process shares it."""

    def __init__(self) -> None:
        self._checkpoints: dict[str, Checkpoint] = {}
        self._tokenizers: dict[str, Tokenizer] = {}
        self._encoders: dict[str, str] = {}

    def checkpoint(self, spec: str) -> Checkpoint:
        """The checkpoint of that name; see `Checkpoint.open`."""
        if spec not in self._checkpoints:
            self._checkpoints[spec] = Checkpoint.open(spec)
        return self._checkpoints[spec]

    def tokenizer(self, checkpoint: Checkpoint) -> Tokenizer:
        """The checkpoint's tokenizer; see `Tokenizer.load`."""
        directory = str(checkpoint.tokenizer_directory)
        if directory not in self._tokenizers:
            self._tokenizers[directory] = Tokenizer.load(checkpoint.tokenizer_directory)
        return self._tokenizers[directory]

    def encoder_sha256(self, checkpoint: Checkpoint) -> str:
        """Content of the encoder; heads of one directory share it, so that it is read once."""
        model = checkpoint.resolved.partition("#")[0]
        if model not in self._encoders:
            self._encoders[model] = checkpoint.encoder_sha256()
        return self._encoders[model]
