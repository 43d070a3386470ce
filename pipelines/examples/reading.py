"""Labelled data, opened and read: files are looked at first, all at once, then their examples stream."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipelines.annotate.inputs import expand_inputs, relative_names
from pipelines.examples.columns import find_columns
from pipelines.examples.example import Example, Notices, Rejected
from pipelines.examples.files import ExampleFile, ReadSettings, inspect_file, list_files
from pipelines.examples.hub import cached_files
from pipelines.examples.languages import language_of
from pipelines.examples.making import ExampleMaker
from pipelines.examples.rows import read_rows
from xlmr_core.errors import InputError


@dataclass(frozen=True, slots=True)
class ExampleSource:
    """Files of one data set, in the order in which they are read.

    Attributes:
        files: Sorted by path.
        settings: How they are read.
    """

    files: tuple[ExampleFile, ...]
    settings: ReadSettings

    def __iter__(self) -> Iterator[Example]:
        """The examples.

        Raises:
            InputError: With `on_error="fail"`, at the first record that cannot be used; else it is passed over. Whoever
                has called `check_examples` knows them all.
        """
        for record in self.records():
            if isinstance(record, Example):
                yield record
            elif self.settings.on_error == "fail":
                raise InputError(f"{record.source}: {record.problem.message}", code=record.problem.code)

    def records(self, notices: Notices | None = None) -> Iterator[Example | Rejected]:
        """Examples, and in their places the records that cannot be used.

        Args:
            notices: Gets what was repaired or dropped.

        Raises:
            InputError: A file changed since it was opened, or cannot be read on.
        """
        for file in self.files:
            yield from read_file(file, self.settings, notices or Notices())


def read_file(file: ExampleFile, settings: ReadSettings, notices: Notices) -> Iterator[Example | Rejected]:
    """The examples of one file, and in their places the records that cannot be used."""
    make = ExampleMaker(file, settings, notices)
    for row in read_rows(file, settings):
        yield make(row)


def open_examples(inputs: Sequence[str | os.PathLike[str]], settings: ReadSettings) -> ExampleSource:
    """Finds the files of a data set, their formats, languages and columns.

    Args:
        inputs: Files, folders, globs, saved `datasets` directories, or `hub:NAME[@CONFIG]:SPLIT` for what `datasets`
            has in its cache; with `format="parallel"` aligned text files, two by two.
        settings: How they are read.

    Raises:
        InputError: Listing everything that is wrong with the inputs, code "bad_input".
    """
    if settings.format == "parallel":
        files = _pairs(inputs)
    else:
        listed = list_files(cached_files(inputs), settings)
        files = [ExampleFile(file, format, language_of(file.path), "") for file, format in listed]
    names = relative_names([file.file for file in files])
    problems: list[str] = []
    opened = []
    for file, name in zip(files, names, strict=True):
        try:
            layout = inspect_file(file.file, file.format, settings)
        except InputError as error:
            problems.append(str(error))
            continue
        existing = layout.existing
        if existing is None:
            problems.append(f"{file.file.path} holds no record; leave it out")
            continue
        found, wrong = find_columns(settings.columns, settings.task, settings.problem_type, existing, file.file)
        problems += wrong
        opened.append(
            replace(
                file,
                name=name,
                columns=found,
                class_names=layout.class_names,
                header=layout.header,
                start=layout.start,
                quoted=layout.quoted,
            )
        )
    if problems:
        raise InputError("\n".join(problems), code="bad_input")
    return ExampleSource(tuple(opened), settings)


def _pairs(inputs: Sequence[str | os.PathLike[str]]) -> list[ExampleFile]:
    """Aligned files two by two, in the order typed."""
    found = [expand_inputs([item], format="text") for item in inputs]
    several = [os.fspath(item) for item, files in zip(inputs, found, strict=True) if len(files) != 1]
    if several or len(found) % 2 or not found:
        what = f"parallel inputs {', '.join(several) or len(found)}"
        raise InputError(f"{what}, they must be single files, two by two; name first, second, ...", code="bad_input")
    files = [one for (one,) in found]
    return [
        ExampleFile(first, "parallel", _language_of_pair(first.path, second.path), "", aligned=second)
        for first, second in zip(files[::2], files[1::2], strict=True)
    ]


def _language_of_pair(first: str, second: str) -> str:
    """Both languages, such as "en-fr", for pairs are drawn by both; one where only that file's name tells."""
    return "-".join(language for language in (language_of(first), language_of(second)) if language)
