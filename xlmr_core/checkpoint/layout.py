"""File names of a model directory, and bounded reading of its JSON files."""

import json
from pathlib import Path
from typing import Any, TypeVar

from xlmr_core.errors import CheckpointError

CONFIG = "config.json"
SETTINGS = "xlmr.json"
HEADS = "heads"
SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
MODULES = "modules.json"
SENTENCE_CONFIG = "config_sentence_transformers.json"
# Any of them is a tokenizer; the first that is there counts.
TOKENIZER_KINDS = ("tokenizer.json", "sentencepiece.bpe.model", "vocab.json")
# One name for each architecture that sentence-transformers once told apart; the content is the same.
SENTENCE_LIMITS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
# Two heads of bge-m3, each the pickled state dict of one linear layer.
SINGLE_HEADS = ("sparse_linear.pt", "colbert_linear.pt")

MAX_JSON_BYTES = 64 << 20

JsonT = TypeVar("JsonT", dict[str, Any], list[Any])


def make_directory(path: Path) -> None:
    """Makes a directory to write to, if need be.

    Raises:
        CheckpointError: The path is a file.
    """
    if path.is_file():
        raise CheckpointError(f"{path} is a file, it must be a directory; choose another name")
    path.mkdir(parents=True, exist_ok=True)


def read_json(path: Path, kind: type[JsonT]) -> JsonT:
    """Reads a JSON file whose top value must be a `kind`.

    Raises:
        CheckpointError: The file is too large, no JSON or something else on top.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, at most {MAX_JSON_BYTES} are read")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}), save or download it again") from None
    if not isinstance(content, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, it must be {wanted}; save or download it again"
        )
    return content


def read_json_if_any(path: Path) -> dict[str, Any]:
    """Reads a JSON object, empty when there is no such file."""
    return read_json(path, dict) if path.is_file() else {}
