"""From what a user typed to files of labelled data: what format each has, its language, its columns."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.annotate.columnar import BROKEN, open_arrow, open_parquet
from pipelines.annotate.inputs import InputFile, expand_inputs
from pipelines.annotate.lines import MAX_RECORD_BYTES, parse_records, read_header
from pipelines.annotate.records import BOM, split_records
from pipelines.annotate.streams import ForwardStream, unreadable
from pipelines.examples.columns import ExampleColumns, FoundColumns
from pipelines.examples.example import ProblemType, Task
from xlmr_core.errors import InputError

Format = Literal["jsonl", "json", "csv", "tsv", "parquet", "conll", "conllu", "text", "parallel"]
CONLL_COLUMNS = ("words", "tags", "text", "id")
CONLLU_COLUMNS = ("words", "lemma", "upos", "xpos", "feats", "deprel", "text", "id")
# A file that is one JSON document is read whole.
MAX_DOCUMENT_BYTES = 256 << 20
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".conllu": "conllu",
    **dict.fromkeys((".conll", ".conll03", ".conll2003", ".bio", ".iob", ".iob1", ".iob2", ".bioes", ".ner"), "conll"),
}
_COMPRESSIONS = (".gz", ".zst")
_PROBE_BYTES = 4 << 20
_HEAD_BYTES = 64 << 10
_PROBE_RECORDS = 1000
_DOCUMENT = re.compile(rb'\s*\{\s*"(data|version)"\s*:')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How labelled data is read.

    Attributes:
        task: Decides what the gold value is.
        problem_type: What the labels of classification are.
        columns: Which column is what.
        format: Of every file, instead of what its name and its first record say. With "parallel" the inputs are pairs
            of aligned text files: first, second, first, second.
        language: Of every record, instead of what a column or the file's name says.
        label_names: Names of labels that the data gives as numbers from 0.
        on_error: Whether a record that cannot be used ends everything ("fail") or is set aside ("quarantine").
        word_gap: What stands between words where the data does not tell; "" for scripts without blanks.
        token_index: Column of the token in CoNLL files, from 0 or, negative, from the end; default 0, or 1 where the
            first column counts the tokens.
        tag_index: Column of the tag; default the last, or the one behind the token where tokens are counted.
        quoting: Whether TSV files quote fields with `"`; default: whether each such field of the first ones is closed.
        first_choice: The number that stands for the first choice.
    """

    task: Task
    problem_type: ProblemType = "single_label_classification"
    columns: ExampleColumns = field(default_factory=ExampleColumns)
    format: Format | None = None
    language: str | None = None
    label_names: tuple[str, ...] = ()
    on_error: Literal["fail", "quarantine"] = "fail"
    word_gap: str = " "
    token_index: int | None = None
    tag_index: int | None = None
    quoting: bool | None = None
    first_choice: int = 0


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """One file of labelled data, ready to be read.

    Attributes:
        file: The bytes; its `format` is what the readers of annotate know it as.
        format: What is in it; "arrow" is a file of a saved `datasets` directory.
        language: Of all its records, "" where the file does not tell.
        name: Path below the folder that holds all files; ids are made from it.
        columns: Which column is what.
        class_names: Names of label numbers, by column, as `datasets` keeps them.
        header: Column names of CSV and TSV.
        start: Offset of the first record, uncompressed bytes.
        quoted: Whether CSV or TSV fields may be quoted.
        aligned: The other file of two that are aligned line by line.
    """

    file: InputFile
    format: str
    language: str
    name: str
    columns: FoundColumns = field(default_factory=lambda: FoundColumns({}))
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    start: int = 0
    quoted: bool = True
    aligned: InputFile | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What the beginning of a file says; see `ExampleFile`.

    Attributes:
        existing: Its columns; None where it holds no record to tell.
        class_names: Names of label numbers, by column.
        header: Column names of CSV and TSV.
        start: Offset of the first record.
        quoted: Whether fields may be quoted.
    """

    existing: tuple[str, ...] | None
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    start: int = 0
    quoted: bool = True


def list_files(inputs: Sequence[str | os.PathLike[str]], settings: ReadSettings) -> list[tuple[InputFile, str]]:
    """Files, folders and globs to files and their formats, sorted by path.

    Raises:
        InputError: Listing every input that gives nothing, code "bad_input".
    """
    named = {os.path.abspath(item) for item in inputs}
    problems = [
        f"{item}: holds several splits; name one of the folders in it"
        for item in sorted(named)
        if os.path.exists(os.path.join(item, "dataset_dict.json"))
    ]
    found = []
    # As "text" every file is found, whatever it is called; saved `datasets` directories are recognised all the same.
    for file in expand_inputs(inputs, format="text"):
        if file.format == "arrow":
            found.append((file, "arrow"))
            continue
        format = settings.format or _format_by_name(file.path)
        if settings.format is None and format in ("text", "tsv"):
            format = _plain_format(file, format, settings.task, named=file.path in named)
        if format is not None:
            found.append((_as(file, format), format))
        elif file.path in named:
            problems.append(f"{file.path}: the name does not say the format; pass format={'|'.join(get_args(Format))}")
    if not found and not problems:
        problems.append(f"{', '.join(str(item) for item in inputs)}: no file with a known name; pass format=")
    if problems:
        raise InputError("\n".join(problems), code="bad_input")
    return [(file, _sniffed(file, format, settings)) for file, format in found]


def _plain_format(file: InputFile, format: str, task: Task, *, named: bool) -> str | None:
    """What a `.txt` or `.tsv` file is to a task; None for one in a folder that has other files for it.

    For tagging it is CoNLL, unless its first line has one column: a list of labels. Otherwise text alone has no labels.
    """
    if task != "token-classification":
        return format if named or format == "tsv" or task in ("fill-mask", "causal-lm") else None
    with ForwardStream(file) as stream:
        lines = stream.read(_HEAD_BYTES).lstrip().splitlines()
    return "conll" if named or (lines and len(lines[0].split()) > 1) else None


def _as(file: InputFile, format: str) -> InputFile:
    """The file under the format by which the readers of annotate know it."""
    return replace(file, format=format if format in ("jsonl", "csv", "tsv", "parquet", "arrow") else "text")


def _format_by_name(path: str) -> str | None:
    stem, suffix = os.path.splitext(path.lower())
    return _SUFFIXES.get(os.path.splitext(stem)[1] if suffix in _COMPRESSIONS else suffix)


def _sniffed(file: InputFile, format: str, settings: ReadSettings) -> str:
    """The format as the first record shows it: a JSON document among JSON lines, CoNLL-U among CoNLL files."""
    if settings.format is not None or format not in ("jsonl", "conll"):
        return format
    with ForwardStream(file) as stream:
        data = stream.read(_PROBE_BYTES).removeprefix(BOM)
    if format == "jsonl":
        first, _, rest = data.lstrip().partition(b"\n")
        if first.startswith(b"[") or _DOCUMENT.match(first):
            return "json"
        return "json" if first.startswith(b"{") and rest and _unclosed(first) else "jsonl"
    lines = (line.rstrip(b"\r").split(b"\t") for line in data.split(b"\n") if line.strip() and line[:1] != b"#")
    fields = next(lines, [])
    return "conllu" if len(fields) == 10 and fields[0][:1].isdigit() else "conll"


def _unclosed(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError as error:
        # An object that the line does not end fails behind its last character; a broken one before.
        return isinstance(error, json.JSONDecodeError) and error.pos >= len(line.decode(errors="replace").rstrip()) - 1
    return False


def inspect_file(file: InputFile, format: str, settings: ReadSettings) -> Layout:
    """Reads what the beginning of a file says of its columns.

    Raises:
        InputError: It cannot be read as what it is said to be.
    """
    if format in ("parquet", "arrow"):
        return _inspect_columnar(file)
    with ForwardStream(file) as stream:
        header = read_header(file, stream)
    if format == "conll":
        return Layout(CONLL_COLUMNS, start=header.start)
    if format == "conllu":
        return Layout(CONLLU_COLUMNS, start=header.start)
    if format in ("text", "parallel"):
        return Layout(("text", "pair") if format == "parallel" else ("text",), start=header.start)
    if format == "json":
        return Layout(_keys(document_rows(file)), start=header.start)
    with ForwardStream(file) as stream:
        stream.skip_to(header.start)
        data = stream.read(_PROBE_BYTES)
    if format == "jsonl":
        return Layout(_json_keys(file, data), start=header.start)
    doubled = sorted({name for name in header.names if header.names.count(name) > 1})
    if doubled:
        what = f"{file.path} has column {', '.join(map(repr, doubled))} more than once"
        raise InputError(f"{what}, names must differ; rename one", code="duplicate_column")
    quoted = settings.quoting if settings.quoting is not None else format == "csv" or _is_quoted(data, header.names)
    return Layout(header.names, header=header.names, start=header.start, quoted=quoted)


def _is_quoted(data: bytes, names: Sequence[str]) -> bool:
    """Whether fields that begin with a quote are quoted fields: not where lines are whole and some are left open."""
    lines = data.decode(errors="replace").split("\n")
    rows = [line.rstrip("\r").split("\t") for line in lines[: -1 if len(lines) > 1 else None] if line.strip()]
    if any(len(row) != len(names) for row in rows):
        return True
    return all(_QUOTED.fullmatch(value) for row in rows for value in row if value.startswith('"'))


def _json_keys(file: InputFile, data: bytes) -> tuple[str, ...] | None:
    records, _ = split_records("jsonl", data)
    if len(data) == _PROBE_BYTES and len(records) > 1:
        records.pop()
    records = records[:_PROBE_RECORDS]
    broken = parse_records("jsonl", records, (), ()).problems
    if records and len(broken) == len(records):
        what = f"{file.path}: none of the first {len(records)} lines is a JSON object"
        raise InputError(f"{what}; write one object a line, or pass format=", code="not_json_lines")
    return _keys([json.loads(record) for row, record in enumerate(records) if row not in broken])


def _keys(rows: Sequence[object]) -> tuple[str, ...] | None:
    keys = dict.fromkeys(key for row in rows[:_PROBE_RECORDS] if isinstance(row, dict) for key in row)
    return tuple(keys) or None


def document_rows(file: InputFile) -> list[object]:
    """The records of a file that is one JSON document: a list, or an object with a list under "data".

    The articles of SQuAD become one flat record a question, with its path in the document under "".

    Raises:
        InputError: It is no such document, or too large.
    """
    if file.size > MAX_DOCUMENT_BYTES:
        raise _no_document(file, f"{file.size} bytes, at most {MAX_DOCUMENT_BYTES} are read in one piece")
    with ForwardStream(file) as stream:
        data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _no_document(file, f"over {MAX_DOCUMENT_BYTES} bytes, more are not read in one piece")
    try:
        document = json.loads(data.removeprefix(BOM))
        rows = document["data"] if isinstance(document, dict) else document
        if not isinstance(rows, list):
            raise _no_document(file, "a document without a list of records")
        if rows and isinstance(rows[0], dict) and "paragraphs" in rows[0]:
            return list(_questions(rows))
        return [{"": f"[{number}]", **row} if isinstance(row, dict) else row for number, row in enumerate(rows)]
    except (ValueError, RecursionError) as error:
        raise _no_document(file, f"not JSON ({type(error).__name__})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_document(file, f"a document with another structure ({error!r:.100})") from error


def _questions(articles: list[dict[str, list[dict[str, list[dict[str, object]]]]]]) -> list[object]:
    return [
        {
            "": f"data[{a}].paragraphs[{p}].qas[{q}]",
            "title": article.get("title"),
            "context": paragraph["context"],
            **question,
        }
        for a, article in enumerate(articles)
        for p, paragraph in enumerate(article["paragraphs"])
        for q, question in enumerate(paragraph["qas"])
    ]


def _no_document(file: InputFile, what: str) -> InputError:
    rule = "it must be a list of objects, SQuAD's articles or one object a line"
    return InputError(f"{file.path}: {what}, {rule}; convert it to JSON lines", code="bad_json")


def _inspect_columnar(file: InputFile) -> Layout:
    if file.size == 0:
        raise InputError(f"{file.path} is empty (0 bytes), it must have a header; leave it out", code="empty_file")
    if file.compression is not None:
        raise InputError(f"{file.path}: Parquet inside {file.compression}; decompress it first", code="bad_input")
    try:
        schema = _schema(file)
        names = _class_names(schema)
    except BROKEN as error:
        raise unreadable(file, error) from error
    return Layout(tuple(schema.names), class_names=names)


def _schema(file: InputFile) -> pa.Schema:
    if file.format == "arrow":
        with pa.memory_map(os.fsencode(file.path)) as source:
            return open_arrow(file, source).schema
    parquet: pq.ParquetFile
    with open_parquet(file) as parquet:
        return parquet.schema_arrow


def _class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Names of `ClassLabel` columns, and of lists of these, from what `datasets` writes beside a schema."""
    content = (schema.metadata or {}).get(b"huggingface", b"{}")[:MAX_RECORD_BYTES]
    try:
        features = json.loads(content)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        while isinstance(feature, list | dict) and not (isinstance(feature, dict) and "names" in feature):
            feature = feature[0] if isinstance(feature, list) and feature else dict(feature or ()).get("feature")
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[column] = tuple(names)
    return found
