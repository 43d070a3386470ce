"""From a name to the arguments of a tokenizer class, and from a tokenizer to files that transformers opens too."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import tokenizers

from xlmr_core.checkpoint.location import at_revision, locate
from xlmr_core.errors import ArgumentError, CheckpointError
from xlmr_core.pretrained_tokenizers.special_tokens import EXTRA, ROLES
from xlmr_core.tokenization.loading import TokenizerSources, added_token, read_tokenizer_config

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
# What `tokenizer_config.json` says for every class.
_KEPT = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    "model_input_names",
    "clean_up_tokenization_spaces",
    "split_special_tokens",
)


def directory_of(name: str | PathLike[str], *, revision: str | None = None, subfolder: str = "") -> Path:
    """The directory that a name means, downloaded without weights if need be.

    Raises:
        CheckpointError: There is none.
    """
    return locate(at_revision(str(name), revision), weights=False).directory / subfolder


def stored_arguments(
    name: str | PathLike[str], file_names: Mapping[str, str], parameters: tuple[str, ...], given: Mapping[str, Any]
) -> dict[str, Any]:
    """What a tokenizer class is to be made with.

    Args:
        name: A directory, `mini`, a Hub id, or one of a tokenizer's files.
        file_names: Names of the class's files, by the argument that takes them.
        parameters: What the class keeps in `tokenizer_config.json`.
        given: What the caller says; `revision` and `subfolder` are read here.

    Returns:
        Arguments by name; parameters of the class on which all are silent are None, "as the file has it".

    Raises:
        CheckpointError: Nothing to read, or files of another class.
        ArgumentError: An option that means nothing here.
    """
    rest = dict(given)
    revision, subfolder = rest.pop("revision", None), rest.pop("subfolder", "")
    path = Path(name)
    if path.is_file():
        files = {argument: _sibling(path, file) for argument, file in file_names.items()}
        config: dict[str, Any] = {}
    else:
        directory = directory_of(name, revision=revision, subfolder=subfolder)
        TokenizerSources.of(directory)
        files = {argument: _present(directory / file) for argument, file in file_names.items()}
        config = read_tokenizer_config(directory)
    if not any(files.values()):
        named = ", ".join(file_names.values())
        raise CheckpointError(f"tokenizer of {name} has none of the class's files {named}; use AutoTokenizer")
    return {
        **dict.fromkeys(parameters),
        **files,
        **_read_config(config, parameters, whole=files.get("tokenizer_file") is not None),
        "name_or_path": str(name),
        **rest,
    }


def _present(path: Path) -> str | None:
    return str(path) if path.is_file() else None


def _sibling(path: Path, file: str) -> str | None:
    """The file itself under its argument; what belongs to it lies beside it."""
    if path.name == TOKENIZER or path.suffix == ".model":
        fits = Path(file).suffix == path.suffix and (file == TOKENIZER) == (path.name == TOKENIZER)
        return str(path) if fits else None
    return _present(path.with_name(file)) if file != TOKENIZER else None


def _read_config(config: Mapping[str, Any], parameters: tuple[str, ...], *, whole: bool) -> dict[str, Any]:
    """What `tokenizer_config.json` says that the classes know; `whole`: added tokens are in `tokenizer.json`."""
    said = {key: config[key] for key in (*_KEPT, *parameters) if config.get(key) is not None}
    if "max_len" in config:
        said.setdefault("model_max_length", config["max_len"])
    for role in ROLES:
        if role in config:
            stored = config[role]
            said[role] = stored.get("content") if isinstance(stored, dict) else stored
    extra = next((config[key] for key in EXTRA if config.get(key)), None)
    if extra:
        tokens = list(extra.values()) if isinstance(extra, dict) else extra
        said[EXTRA[0]] = [added_token(token) if isinstance(token, dict) else token for token in tokens]
    if not whole and config.get("added_tokens_decoder"):
        said["added_tokens_decoder"] = config["added_tokens_decoder"]
    return said


def write_tokenizer(
    library: tokenizers.Tokenizer, config: Mapping[str, Any], directory: Path, prefix: str | None
) -> tuple[str, ...]:
    """Writes `tokenizer.json` and `tokenizer_config.json`; their paths."""
    if directory.is_file():
        raise ArgumentError(f"{directory} is a file, it must be a directory; name another")
    directory.mkdir(parents=True, exist_ok=True)
    whole, described = (directory / with_prefix(name, prefix) for name in (TOKENIZER, CONFIG))
    library.save(str(whole))
    described.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return str(described), str(whole)


def with_prefix(name: str, prefix: str | None) -> str:
    """A file name behind a prefix, if there is one."""
    return f"{prefix}-{name}" if prefix else name


def component_types(library: tokenizers.Tokenizer) -> dict[str, Any]:
    """Normaliser and pre-tokenizer as the library serialises them, the character map left out."""
    parts: dict[str, Any] = {}
    for name in ("normalizer", "pre_tokenizer"):
        part = getattr(library, name)
        parts[name] = None if part is None else json.loads(part.__getstate__())
        if parts[name] is not None:
            parts[name].pop("precompiled_charsmap", None)
    return parts
