"""Tiny checkpoints with the same bytes everywhere: what an oracle of another environment and our tests both open.

Every value is a function of (seed, name of the tensor) through the raw 64-bit stream of numpy's PCG64, the one part of
`numpy.random` whose output is promised never to change (its distributions are not), and one exact multiplication.
Only numpy and safetensors are needed here, so both environments run this very file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

MINI = Path(__file__).parents[2] / "xlmr_core/mini"
HIDDEN, LAYERS, HEADS, INTERMEDIATE = 32, 2, 4, 64
PAD_TOKEN_ID = 1
# Wide enough that hidden states differ clearly; norms and biases are random too, so that none can be forgotten unseen.
SPREAD = 0.3

Shapes = dict[str, tuple[int, ...]]


def write_checkpoint(
    directory: Path,
    architecture: str,
    seed: int,
    max_positions: int,
    *,
    labels: Sequence[str] = ("LABEL_0", "LABEL_1"),
    head_spread: float = SPREAD,
    config: Mapping[str, object] | None = None,
) -> Path:
    """Writes a model directory (config, weights, the embedded model's tokenizer) that `transformers` opens.

    Args:
        directory: Made when it is not there.
        architecture: "XLMRobertaModel" or "XLMRobertaFor...": MaskedLM, SequenceClassification, TokenClassification,
            QuestionAnswering or MultipleChoice.
        seed: Of all weights; a tensor that two architectures share has the same values in both.
        max_positions: `max_position_embeddings`; a sequence may have two tokens fewer.
        labels: Names of the classes; question answering has always its two, masked LM and multiple choice none.
        head_spread: Standard deviation of the head's last projection: larger for clearer answers.
        config: Written over the entries of config.json, e.g. {"problem_type": "multi_label_classification"}.

    Returns:
        The directory.

    Raises:
        KeyError: The architecture is none of these.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = (MINI / "tokenizer.json").read_bytes()
    vocabulary = 1 + max(token["id"] for token in json.loads(tokenizer)["added_tokens"])
    if architecture == "XLMRobertaForQuestionAnswering":
        labels = ("LABEL_0", "LABEL_1")
    head, last = _head_shapes(vocabulary, len(labels))[architecture]
    encoder = _encoder_shapes(vocabulary, max_positions)
    prefix = "" if architecture == "XLMRobertaModel" else "roberta."
    shapes = {prefix + name: shape for name, shape in encoder.items()} | head
    tensors = {}
    for name, shape in shapes.items():
        spread = head_spread if name == last else SPREAD
        tensors[name] = _values(seed, name.removeprefix("roberta."), shape, spread)
    padding = tensors[prefix + "embeddings.word_embeddings.weight"]
    padding[PAD_TOKEN_ID] = 0
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "tokenizer.json").write_bytes(tokenizer)
    tokenizer_config = json.loads((MINI / "tokenizer_config.json").read_bytes())
    _write_json(directory / "tokenizer_config.json", tokenizer_config | {"model_max_length": max_positions - 2})
    _write_json(
        directory / "config.json", _config(architecture, vocabulary, max_positions, labels) | dict(config or {})
    )
    return directory


def file_sha256(path: Path) -> str:
    """What a golden file records of its inputs, so that a test can say that it has the very same ones."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _values(seed: int, name: str, shape: tuple[int, ...], spread: float) -> NDArray[np.float32]:
    """Uniform values with standard deviation `spread`, around 1 for the weight of a norm, around 0 otherwise."""
    stream = np.random.PCG64([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
    # 23 bits and half a step: symmetric around zero, and exact in float32.
    bits = stream.random_raw(int(np.prod(shape))) >> np.uint64(41)
    unit = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23) - np.float32(0.5)
    values = unit * np.float32(spread * 12**0.5)
    if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
        values += np.float32(1)
    return values.reshape(shape)


def _encoder_shapes(vocabulary: int, max_positions: int) -> Shapes:
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, HIDDEN),
        "embeddings.position_embeddings.weight": (max_positions, HIDDEN),
        "embeddings.token_type_embeddings.weight": (1, HIDDEN),
        **_norm("embeddings.LayerNorm"),
    }
    for layer in range(LAYERS):
        root = f"encoder.layer.{layer}."
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{root}attention.self.{part}", HIDDEN, HIDDEN)
        shapes |= _linear(f"{root}attention.output.dense", HIDDEN, HIDDEN) | _norm(f"{root}attention.output.LayerNorm")
        shapes |= _linear(f"{root}intermediate.dense", INTERMEDIATE, HIDDEN)
        shapes |= _linear(f"{root}output.dense", HIDDEN, INTERMEDIATE) | _norm(f"{root}output.LayerNorm")
    return shapes


def _head_shapes(vocabulary: int, labels: int) -> dict[str, tuple[Shapes, str]]:
    """For each architecture: tensors outside the encoder, and which of them is the last projection."""
    dense = _linear("classifier.dense", HIDDEN, HIDDEN)
    # The decoder's matrix is the word embedding, so the file holds its bias only.
    lm_head = _linear("lm_head.dense", HIDDEN, HIDDEN) | _norm("lm_head.layer_norm") | {"lm_head.bias": (vocabulary,)}
    return {
        "XLMRobertaModel": (_linear("pooler.dense", HIDDEN, HIDDEN), ""),
        "XLMRobertaForMaskedLM": (lm_head, ""),
        "XLMRobertaForSequenceClassification": (
            dense | _linear("classifier.out_proj", labels, HIDDEN),
            "classifier.out_proj.weight",
        ),
        "XLMRobertaForTokenClassification": (_linear("classifier", labels, HIDDEN), "classifier.weight"),
        "XLMRobertaForQuestionAnswering": (_linear("qa_outputs", 2, HIDDEN), "qa_outputs.weight"),
        "XLMRobertaForMultipleChoice": (
            _linear("roberta.pooler.dense", HIDDEN, HIDDEN) | _linear("classifier", 1, HIDDEN),
            "classifier.weight",
        ),
    }


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str) -> Shapes:
    return {f"{name}.weight": (HIDDEN,), f"{name}.bias": (HIDDEN,)}


def _config(architecture: str, vocabulary: int, max_positions: int, labels: Sequence[str]) -> dict[str, object]:
    return {
        "architectures": [architecture],
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": HIDDEN,
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "label2id": {label: index for index, label in enumerate(labels)},
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": max_positions,
        "model_type": "xlm-roberta",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": PAD_TOKEN_ID,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "type_vocab_size": 1,
        "vocab_size": vocabulary,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
