"""What a job was asked to do: typed sections from a YAML file, options and `section.field=value`, later ones win.

Every problem of all sources is found before anything is raised. Ray, torch and the core are
not imported here, so that a wrong command line is answered at once.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MAX_FILE_BYTES = 1 << 20
# Parts of the longest dotted name, such as heads.topic.vectors.scale.
_DEEPEST = 4

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class ConfigError(ValueError):
    """A job description that cannot be used: all its problems, one a line."""


def _split(value: object) -> object:
    if value is None:
        return []
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _without_repeats(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a list without repeats")
    return names


def _one(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_without_repeats)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_one)]
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_split)]
Places = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_split)]
Factors = Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], BeforeValidator(_split)]


class Section(BaseModel):
    """A group of settings; unknown names are refused and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class InputSection(Section):
    """Which records.

    Attributes:
        paths: Files, folders and globs.
        format: Of every file, instead of what each suffix says.
        text_column: Text to annotate; `a.b` is field b of struct a.
        pair_column: Second texts, for tasks that read two; each column holds a string or a list of strings.
        id_column: Record ids; made from file and row where None.
        language_column: Languages of the records, for models with thresholds by language.
        keep: Columns to copy to the output.
        limit: Take only the first so many records.
        sample: Take this fraction of the records.
        seed: Chooses which ones.
    """

    paths: Annotated[Texts, Field(min_length=1, description="INPUT...")]
    format: Literal["text", "jsonl", "csv", "tsv", "parquet", "arrow"] | None = None
    text_column: str = "text"
    pair_column: Names = ()
    id_column: str | None = None
    language_column: str | None = None
    keep: Names = ()
    limit: Count | None = None
    sample: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0


class ModelSection(Section):
    """What to compute.

    Attributes:
        tasks: `NAME=MODEL[,key=value...]`, one an annotation.
        on_long: What to do with texts longer than a window.
        dtype: Compute type.
        device: "cpu", "cuda", or "auto" for CUDA where the cluster has GPUs.
        max_tokens: Budget of a packed batch; default: a measured one for the device.
    """

    tasks: Annotated[Texts, Field(min_length=1)] = ("language=mini#language",)
    on_long: Literal["window", "truncate", "error"] = "window"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_tokens: Annotated[int, Field(ge=512)] | None = None


class OutputSection(Section):
    """Where results go.

    Attributes:
        path: Output directory; one that holds the same job, unfinished, is continued.
        on_error: Whether a record that cannot be processed is set aside or ends the job.
        report_samples: So many rows are shown, with their texts, in `report.html`.
    """

    path: Annotated[str, Field(min_length=1, description="--output DIRECTORY")]
    on_error: Literal["quarantine", "fail"] = "quarantine"
    report_samples: Annotated[int, Field(ge=0, le=200)] = 0


class RunSection(Section):
    """How the work is spread; none of this changes results.

    Attributes:
        shard_rows: Records of a shard; default: some seconds of model time.
        model_workers: Default: one a GPU, or one a machine without GPUs.
        tokenise_workers: Default: what the other CPUs allow.
        ray_address: A running Ray cluster; default: the one of this process, else a new local one.
        stall_minutes: A job without a finished shard or a computed batch for so long is given up.
    """

    shard_rows: Count | None = None
    model_workers: Count | None = None
    tokenise_workers: Count | None = None
    ray_address: str | None = None
    stall_minutes: Annotated[float, Field(gt=0.0)] = 15.0


class AnnotateConfig(Section):
    """Everything `xlmr annotate` needs to know."""

    input: InputSection
    model: ModelSection = ModelSection()
    output: OutputSection
    run: RunSection = RunSection()


def load_config(
    kind: type[ConfigT],
    *,
    base: Path | None = None,
    file: Path | None = None,
    options: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
) -> ConfigT:
    """Builds a config; `overrides` win over `options`, these over the file, this over its base, this over defaults.

    Args:
        kind: A model whose fields are sections.
        base: YAML as `file`, of which what the file does not say is taken.
        file: YAML with the sections as keys.
        options: Values by dotted name, such as {"input.limit": 10}; None means not given.
        overrides: `section.field=value`, as typed; in sections of sections `section.section.field=value`.

    Raises:
        ConfigError: All problems at once.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for layer in (base, file):
        values = _over(values, _read_yaml(layer)) if layer is not None else values
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for text in overrides:
        name, equals, typed = text.partition("=")
        if not equals or not _is_dotted(name):
            problems.append(f"override {text!r}, it must look like section.field=value")
            continue
        given[name] = None if typed == "null" else typed
    for name, value in given.items():
        *sections, field = name.split(".")
        target: Any = values
        for section in sections:
            # What is no section is refused below.
            if isinstance(target, dict):
                if target.get(section) is None:
                    target[section] = {}
                target = target[section]
        if isinstance(target, dict):
            target[field] = value
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            problems += _problems(kind, entry)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def is_override(kind: type[BaseModel], text: str) -> bool:
    """Whether a word of the command line is a `section.field=value` of this config, or meant as one."""
    name, equals, _ = text.partition("=")
    return bool(equals) and name.split(".")[0] in kind.model_fields and _is_dotted(name)


def _is_dotted(name: str) -> bool:
    return 2 <= len(name.split(".")) <= _DEEPEST


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two layers of settings as one, field by field."""
    both = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            both[name] = _over(below[name], above[name])
    return both


def _problems(kind: type[BaseModel], entry: Any) -> list[str]:
    """One pydantic error in the words of the user: the dotted name, what was got, the rule."""
    path = [str(part) for part in entry["loc"]]
    section, depth = _section(kind, path)
    where, name = ".".join(path[:depth]), ".".join(path[: depth + 1])
    if entry["type"] == "missing":
        fields = section.model_fields
        names = path[depth : depth + 1] or [field for field, info in fields.items() if info.is_required()]
        return [
            f"{where}.{field} is missing; give it as {fields[field].description} or in the config file"
            for field in names
        ]
    if entry["type"] == "extra_forbidden":
        known = list(section.model_fields)
        close = get_close_matches(path[-1], known, n=1)
        return [f"{name} is unknown; " + (f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}")]
    got = repr(entry["input"])
    rule = entry["msg"].removeprefix("Input should be").removeprefix("Value error,").strip()
    rule = "not empty" if entry["type"] in ("too_short", "string_too_short") else f"{rule[:1].lower()}{rule[1:]}"
    if not name:
        return [f"a config must have {rule}"]
    return [f"{name}={got if len(got) < 200 else got[:200] + '...'}, it must be {rule}"]


def _section(kind: type[BaseModel], path: Sequence[str]) -> tuple[type[BaseModel], int]:
    """The innermost section that a path leads into, and how many parts name it: two for one of several with names."""
    section, depth = kind, 0
    while depth < len(path):
        field = section.model_fields.get(path[depth])
        annotation = field.annotation if field else None
        parts = get_args(annotation) or (annotation,)
        inner = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
        if inner is None:
            break
        section, depth = inner, depth + (2 if get_origin(annotation) is dict else 1)
    return section, min(depth, len(path))


class _Loader(yaml.SafeLoader):
    """Plain YAML only: aliases, which can grow a small file without bound, and repeated keys are refused."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not read", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            problem = f"{', '.join(twice)} stands there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        # Opening a pipe that nobody writes to would wait for ever.
        if file.exists() and not file.is_file():
            raise ConfigError(f"config {file} is not a regular file; copy it to one")
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"config {file} cannot be read ({error.strerror}); check the path") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"config {file} is larger than {MAX_FILE_BYTES >> 20} MiB; it must be a short file")
    try:
        # _Loader is a SafeLoader.
        values = yaml.load(data, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"config {file} is no plain YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"config {file} is no plain YAML ({type(error).__name__})") from error
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"config {file} must hold sections such as `input:` and `model:` at its top")
    return values
