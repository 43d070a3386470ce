"""Settings that the field trains with, by name: `recipes/*.yaml`, each a part of a config of `xlmr finetune`.

What a user says wins over them. A recipe's first line says what it is for, its other comments where every number is
from and which results it should reach.
"""

from difflib import get_close_matches
from pathlib import Path

from pipelines.config import ConfigError

_FOLDER = Path(__file__).with_name("recipes")


def recipes() -> dict[str, str]:
    """What each recipe is for, by name."""
    return {path.stem: _purpose(path) for path in sorted(_FOLDER.glob("*.yaml"))}


def recipe_file(name: str) -> Path:
    """The config of a recipe.

    Raises:
        ConfigError: There is none of that name.
    """
    known = recipes()
    if name not in known:
        close = get_close_matches(name, known, n=1)
        rule = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise ConfigError(f"recipe={name} is unknown; {rule}")
    return _FOLDER / f"{name}.yaml"


def _purpose(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
