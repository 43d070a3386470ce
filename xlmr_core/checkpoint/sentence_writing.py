"""Writing what sentence-transformers looks for in a model directory, so that its vectors are those of `annotate`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core.checkpoint import layout
from xlmr_core.checkpoint.embedding import EmbeddingSpec

# By the names that every version of sentence-transformers knows.
_TYPE = "sentence_transformers.models."


def write_sentence_files(draft: Path, settings: Mapping[str, Any], *, hidden_size: int, max_length: int) -> None:
    """Adds `modules.json` and what it lists to a model directory: a Transformer, a Pooling, and a Normalize if wanted.

    Args:
        draft: The directory, which has encoder and tokenizer or will have them.
        settings: What its `xlmr.json` says of vectors, see `EmbeddingSpec.from_settings`.
        hidden_size: Width of the encoder.
        max_length: Longest input, special tokens included.

    Raises:
        CheckpointError: The settings name no pooling that is known.
    """
    spec = EmbeddingSpec.from_settings(settings, source=str(draft / layout.SETTINGS))
    assert spec is not None
    kinds = ["Transformer", "Pooling", *(["Normalize"] if spec.normalize else [])]
    folders = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds) if number)]
    modes = list(spec.pooling.modes)
    pooling: dict[str, Any] = {
        "word_embedding_dimension": hidden_size,
        "pooling_mode": modes[0] if len(modes) == 1 else modes,
        "include_prompt": spec.pooling.include_prompt,
    }
    vectors: dict[str, Any] = {
        "prompts": dict(spec.prompts),
        "default_prompt_name": spec.default_prompt_name,
        "similarity_fn_name": spec.similarity or "cosine",
    }
    if spec.truncate_dim is not None:
        vectors["truncate_dim"] = spec.truncate_dim
    for folder in folders[1:]:
        (draft / folder).mkdir()
    modules = [
        {"idx": number, "name": str(number), "path": folder, "type": _TYPE + kind}
        for number, (kind, folder) in enumerate(zip(kinds, folders, strict=True))
    ]
    _write(draft / layout.MODULES, modules)
    _write(draft / folders[1] / layout.CONFIG, pooling)
    _write(draft / layout.SENTENCE_LIMITS[0], {"max_seq_length": max_length, "do_lower_case": False})
    _write(draft / layout.SENTENCE_CONFIG, vectors)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
