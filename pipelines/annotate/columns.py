"""Which columns a job asks for, and how a dotted name finds a nested one."""

import base64
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.annotate.inputs import InputFile
from xlmr_core.errors import InputError

_NAMES_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns a job reads.

    `a.b` is field b of struct (or JSON object) a, unless a column has that very name.

    Attributes:
        text: Text to annotate.
        pair: Second text of pair tasks.
        id: Record ids, integers or strings; made from file and row where None.
        keep: Columns to copy to the output.
        id_type: "int64" when every file's ids are integers, else "string"; `make_plan` decides it.
        keep_types: Arrow schema of `keep`, base64 of its IPC form; `make_plan` decides it.
    """

    text: str = "text"
    pair: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()
    id_type: str = "string"
    keep_types: str = ""

    def asked(self) -> tuple[str, ...]:
        """Every column to read, each once."""
        names = (self.text, self.pair, self.id, *self.keep)
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
        InputError: Code "keep_types", when a kept column's types in two files have nothing in common.
    """
    id_types = {found.id_type for _, found in types if found.id_type is not None}
    fields = []
    for name in columns.keep:
        field: pa.Field | None = None
        for file, found in types:
            own = found.keep.field(name)
            try:
                field = own if field is None else _unified(field, own)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise InputError(
                    f"kept column {name!r} is {own.type} in {file.path} but "
                    f"{field.type if field else None} in files before it, one type must fit all; "
                    "convert the files or do not keep it",
                    code="keep_types",
                ) from error
        fields.append(field if field is not None else pa.field(name, pa.string()))
    return ("int64" if id_types == {"int64"} else "string"), pa.schema(fields)


def _unified(left: pa.Field, right: pa.Field) -> pa.Field:
    return pa.unify_schemas([pa.schema([left]), pa.schema([right])], promote_options="permissive").field(0)


def missing_columns(file: InputFile, missing: Iterable[str], existing: Sequence[str]) -> InputError:
    """The InputError for columns that a file does not have."""
    wanted = list(missing)
    near = {name: difflib.get_close_matches(name, existing, n=1, cutoff=0.5) for name in wanted}
    hints = [f"{name!r} is perhaps {match[0]!r}" for name, match in near.items() if match]
    shown = ", ".join(existing[:_NAMES_SHOWN]) or "none"
    more = f" and {len(existing) - _NAMES_SHOWN} more" if len(existing) > _NAMES_SHOWN else ""
    return InputError(
        f"{file.path} has no column {', '.join(map(repr, wanted))}, its columns are: {shown}{more}; "
        f"{'; '.join(hints) or 'name another column'}",
        code="missing_column",
    )
