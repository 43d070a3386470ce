"""Which columns a job asks for, and how a dotted name finds a nested one."""

import base64
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.annotate.inputs import InputFile
from xlmr_core.errors import InputError

_NAMES_SHOWN = 30
# Integers of up to so many bits are exact in these.
_EXACT_BITS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}
_BYTE_TYPES = {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns a job reads.

    `a.b` is field b of struct (or JSON object) a, unless a column has that very name.

    Attributes:
        text: Text to annotate.
        pair: Second texts of tasks that read two, strings or lists of strings.
        id: Record ids, integers or strings; made from file and row where None.
        keep: Columns to copy to the output.
        language: Languages of the records, for models with thresholds by language.
        id_type: "int64" when every file's ids are integers, else "string"; `make_plan` decides it.
        keep_types: Arrow schema of `keep`, base64 of its IPC form; `make_plan` decides it.
    """

    text: str = "text"
    pair: tuple[str, ...] = ()
    id: str | None = None
    keep: tuple[str, ...] = ()
    language: str | None = None
    id_type: str = "string"
    keep_types: str = ""

    def asked(self) -> tuple[str, ...]:
        """Every column to read, each once."""
        names = (self.text, *self.pair, self.id, self.language, *self.keep)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def keep_schema(self) -> pa.Schema:
        """Schema of the kept columns: the same for every shard of the job."""
        if not self.keep_types:
            return pa.schema([pa.field(name, pa.string()) for name in self.keep])
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.keep_types)))


@dataclass(frozen=True, slots=True)
class FileTypes:
    """What one file's columns are, as far as the whole job must agree on it."""

    id_type: str | None
    keep: pa.Schema


def encode_schema(schema: pa.Schema) -> str:
    """A schema as text, for `Columns.keep_types`."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def agree(columns: Columns, types: Sequence[tuple[InputFile, FileTypes]]) -> tuple[str, pa.Schema]:
    """Finds the id type and the kept columns' types that fit every file.

    Raises:
        InputError: Code "keep_types", when no type holds every value of a kept column in two files.
    """
    id_types = {found.id_type for _, found in types if found.id_type is not None}
    fields = []
    for name in columns.keep:
        field: pa.Field | None = None
        for file, found in types:
            own = found.keep.field(name)
            common = own if field is None else _unified(field, own)
            if common is None:
                raise InputError(
                    f"kept column {name!r} is {own.type} in {file.path} but "
                    f"{field.type if field else None} in files before it, one type must hold every value of both; "
                    "convert the files or do not keep it",
                    code="keep_types",
                )
            field = common
        fields.append(field if field is not None else pa.field(name, pa.string()))
    return ("int64" if id_types == {"int64"} else "string"), pa.schema(fields)


def _unified(left: pa.Field, right: pa.Field) -> pa.Field | None:
    """The field whose type holds every value of both; None where there is no such type."""
    try:
        schemas = [pa.schema([left]), pa.schema([right])]
        common: pa.Field = pa.unify_schemas(schemas, promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    return common if _holds(common.type, left.type) and _holds(common.type, right.type) else None


def _holds(common: pa.DataType, own: pa.DataType) -> bool:
    """Whether every value of type `own` can be cast to `common` and is the same there."""
    kinds = pa.types
    if common == own or kinds.is_null(own):
        return True
    if kinds.is_integer(own):
        signed = kinds.is_signed_integer(own)
        if kinds.is_integer(common):
            wider: bool = common.bit_width > own.bit_width
            return wider and (kinds.is_signed_integer(common) or not signed)
        return bool(own.bit_width - signed <= _EXACT_BITS.get(common, 0))
    if kinds.is_floating(own):
        return bool(kinds.is_floating(common) and common.bit_width > own.bit_width)
    if kinds.is_decimal(own) and kinds.is_decimal(common):
        return bool(common.scale >= own.scale and common.precision - common.scale >= own.precision - own.scale)
    if own in _BYTE_TYPES:
        return common in _BYTE_TYPES
    if kinds.is_list(own) and kinds.is_list(common):
        return _holds(common.value_type, own.value_type)
    return False


def missing_columns(file: InputFile, missing: Iterable[str], existing: Sequence[str], where: str = "") -> InputError:
    """The InputError for columns that a file does not have, or does not have `where` it was looked at."""
    wanted = list(missing)
    near = {name: difflib.get_close_matches(name, existing, n=1, cutoff=0.5) for name in wanted}
    hints = [f"{name!r} is perhaps {match[0]!r}" for name, match in near.items() if match]
    shown = ", ".join(existing[:_NAMES_SHOWN]) or "none"
    more = f" and {len(existing) - _NAMES_SHOWN} more" if len(existing) > _NAMES_SHOWN else ""
    return InputError(
        f"{file.path} has no column {', '.join(map(repr, wanted))}{where}, its columns are: {shown}{more}; "
        f"{'; '.join(hints) or 'name another column'}",
        code="missing_column",
    )
