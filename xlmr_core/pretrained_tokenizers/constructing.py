"""What every tokenizer's constructor takes: its files, and options beside the documented ones, checked all at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_core.errors import ArgumentError, CheckpointError
from xlmr_core.pretrained_tokenizers.special_tokens import EXTRA
from xlmr_core.tokenization.loading import TokenizerSources

# What transformers states where nothing is known.
NO_LIMIT = int(1e30)
# With the defaults.
COMMON: Mapping[str, Any] = {
    "model_max_length": None,
    "padding_side": "right",
    "truncation_side": "right",
    "model_input_names": ("input_ids", "attention_mask"),
    "clean_up_tokenization_spaces": False,
    "split_special_tokens": False,
    "name_or_path": "",
}
_SIDES = ("left", "right")


def common_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that all classes have, with their defaults; refuses all others."""
    values = {name: options.get(name, default) for name, default in COMMON.items()}
    if values["model_max_length"] is None:
        values["model_max_length"] = NO_LIMIT
    problems = []
    unknown = sorted(options.keys() - {*COMMON, *EXTRA, "added_tokens_decoder"})
    if unknown:
        problems.append(f"unknown argument {', '.join(unknown)}; known besides the documented are {', '.join(COMMON)}")
    if isinstance(values["model_max_length"], bool) or not isinstance(values["model_max_length"], (int, float)):
        problems.append(f"model_max_length {values['model_max_length']!r}, it must be a number of tokens")
    for name in ("padding_side", "truncation_side"):
        if values[name] not in _SIDES:
            problems.append(f"{name} {values[name]!r}, it must be 'left' or 'right'")
    for name in ("clean_up_tokenization_spaces", "split_special_tokens"):
        if not isinstance(values[name], bool):
            problems.append(f"{name} {values[name]!r}, it must be True or False")
    if problems:
        raise ArgumentError("\n".join(problems))
    values["model_max_length"] = int(values["model_max_length"])
    values["model_input_names"] = list(values["model_input_names"])
    return values


def sources_of(files: Mapping[str, Path | None], name: str) -> TokenizerSources:
    """The files of a tokenizer, all there.

    Args:
        files: By their names in `TokenizerSources`.
        name: Of the class that reads them.

    Raises:
        ArgumentError: None, or one of two.
        CheckpointError: A path without a file.
    """
    wrong = [f"{path} is no file" for path in files.values() if path is not None and not path.is_file()]
    if wrong:
        raise CheckpointError(f"{'; '.join(wrong)}, {name} reads it; check the path")
    sources = TokenizerSources(**files)
    two = sources.vocabulary is not None and sources.merges is not None
    if sources.whole is None and sources.pieces is None and not two:
        needed = "vocab_file and merges_file" if "merges" in files else "vocab_file"
        raise ArgumentError(f"{name} without {needed}, it needs them or tokenizer_file; or use from_pretrained")
    return sources
