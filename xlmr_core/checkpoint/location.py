"""From what a user typed to a directory: a path, the embedded model, or a Hugging Face Hub id.

Forms: `DIR`, `DIR#head`, `mini`, `mini#head`, `org/name`, `org/name@revision`, `org/name@revision#head`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from xlmr_core.checkpoint import layout
from xlmr_core.errors import CheckpointError

MINI = Path(__file__).parents[1] / "mini"

_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
# Names from before the Hub had organisations; it still answers to them.
_OLD_NAMES = ("roberta-base", "roberta-large", "xlm-roberta-base", "xlm-roberta-large")
_SMALL_FILES = (
    layout.CONFIG,
    layout.SETTINGS,
    layout.MODULES,
    layout.SENTENCE_CONFIG,
    *layout.SENTENCE_LIMITS,
    *layout.TOKENIZER,
    *layout.SINGLE_HEADS,
    layout.ADAPTER_CONFIG,
)
_SAFETENSORS = (layout.ADAPTER, layout.SAFETENSORS, layout.SAFETENSORS_INDEX, "model-*-of-*.safetensors")
_PICKLED = (layout.PICKLED, layout.PICKLED_INDEX, "pytorch_model-*-of-*.bin")
# Folders of sentence-transformers modules are numbered: 0_Transformer, 1_Pooling, 2_Dense.
_MODULE_FOLDER = "[0-9]*_*/"
# Their weights are small and some models have them as a pickle only.
_SMALL_PICKLES = "[1-9]*_*/" + layout.PICKLED


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model is.

    Attributes:
        directory: The model directory.
        head: One of its heads, None for the directory's own.
        repository: Hub id it came from.
        revision: Commit of the Hub repository.
    """

    directory: Path
    head: str | None
    repository: str | None = None
    revision: str | None = None

    @property
    def spec(self) -> str:
        """Names the very same model on any machine and in any working directory, once and for all.

        A directory by its absolute path, a Hub model by its commit.
        """
        hub = self.repository and f"{self.repository}@{self.revision}"
        name = "mini" if self.directory == MINI else hub or str(self.directory.absolute())
        return f"{name}#{self.head}" if self.head else name


def locate(spec: str, *, weights: bool = True) -> Location:
    """Finds a model directory, downloading it if need be; its small files alone where no weights are wanted.

    Raises:
        CheckpointError: There is no such directory, or the Hub and its cache do not have it.
    """
    # A directory may have # or @ in its name; then it is that directory.
    if spec not in ("", "mini") and Path(spec).is_dir():
        return Location(Path(spec), None)
    name, _, head = spec.partition("#") if "#" in spec else (spec, "", "")
    if "#" in spec and not re.fullmatch(r"\w[\w.-]*", head):
        raise CheckpointError(f"model {spec!r} names the head {head!r}, it must be letters, digits, _, . and -")
    if name == "mini":
        return Location(MINI, head or None)
    if name and Path(name).is_dir():
        return Location(Path(name), head or None)
    hub = _HUB_ID.fullmatch(f"FacebookAI/{name}" if name.partition("@")[0] in _OLD_NAMES else name)
    if hub is None:
        raise CheckpointError(f"model {spec!r} is no directory, it must be one, mini, or a Hub id org/name[@revision]")
    directory = (_download if weights else _download_small)(hub["repository"], hub["revision"])
    return Location(directory, head or None, hub["repository"], directory.name)


def at_revision(spec: str | Path, revision: str | None) -> str:
    """A Hub id with its revision behind it; a directory has none."""
    name = str(spec)
    return name if revision is None or Path(name).is_dir() else f"{name.partition('@')[0]}@{revision}"


def _download(repository: str, revision: str | None) -> Path:
    """Fetches what inference needs and no more: one kind of weights, never both."""
    directory = _snapshot(repository, revision, [*_SMALL_FILES, *_SAFETENSORS, f"{layout.HEADS}/*", _SMALL_PICKLES])
    if not any(directory.glob("*.safetensors")) and not any(directory.glob("0_*/*.safetensors")):
        _snapshot(repository, revision, list(_PICKLED))
    return directory


def _download_small(repository: str, revision: str | None) -> Path:
    """Fetches configuration and tokenizer."""
    return _snapshot(repository, revision, list(_SMALL_FILES))


def _snapshot(repository: str, revision: str | None, names: list[str]) -> Path:
    patterns = [*names, *(_MODULE_FOLDER + name for name in names)]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        rule = (
            f"it is no directory here and neither the Hub nor its cache gave it ({said}); check the name, or "
            f"run `{download_command(repository, revision)}` where there is a network and copy the cache"
        )
        raise CheckpointError(f"model {repository!r} cannot be had, {rule}") from None


def download_command(repository: str, revision: str | None) -> str:
    """What to type to fill the cache."""
    return f"hf download {repository}" + (f" --revision {revision}" if revision else "")
