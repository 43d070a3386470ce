"""One pass over labelled data before anything is trained: every problem at once, and what the data holds."""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from pipelines.examples.example import MAX_PLACES, Example, Notices, Rejected, WordLabels
from pipelines.examples.files import ExampleFile
from pipelines.examples.labels import LabelCounts, label_order, labels_of
from pipelines.examples.reading import ExampleSource, read_file
from pipelines.examples.tags import TagCheck
from xlmr_core.errors import InputError

# Ids that are compared: 16 bytes of memory each.
_MAX_IDS = 20_000_000


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What was decided about one file.

    Attributes:
        path: Where it is.
        format: What it was read as.
        language: What its name told; "" where it told nothing, or where a column or an option was asked instead.
        columns: Column names by role.
        examples: How many it holds.
        rejected: Records that cannot be used.
    """

    path: str
    format: str
    language: str
    columns: dict[str, str]
    examples: int
    rejected: int


@dataclass(frozen=True, slots=True)
class ExampleSummary:
    """What a data set holds, for the terminal and for `meta.json`.

    Attributes:
        examples: How many.
        rejected: Records that cannot be used, by code.
        first_rejected: "file:line code: message" of the first ones of each code, at most `MAX_PLACES`.
        notices: What is odd but not wrong, by code: "answer_repaired", "answer_dropped", "broken_tags", "duplicate_id",
            "no_language", "words_not_in_text", "labels_alike" (but for case or blanks), "labels_apart" (a file
            has labels that no other file has, and lacks others).
        first_notices: "file:line" of the first ones, by code.
        labels: How often each label occurs, in the order of `label_set`.
        labels_by_language: The same for each language.
        languages: Examples of each language.
        files: What was decided about each.
    """

    examples: int
    rejected: dict[str, int]
    first_rejected: dict[str, list[str]]
    notices: dict[str, int]
    first_notices: dict[str, list[str]]
    labels: dict[str, int]
    labels_by_language: dict[str, dict[str, int]]
    languages: dict[str, int]
    files: tuple[FileSummary, ...]

    @property
    def label_set(self) -> tuple[str, ...]:
        """All labels in order: sorted; tags with "O" first, then type by type."""
        return tuple(self.labels)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON. Holds labels, languages, paths and column names, but no text."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A few lines for the terminal."""
        shown = [f"{self.examples:,} examples in {len(self.files)} files"]
        shown += [f"  {code}: {count:,} records left out" for code, count in self.rejected.items()]
        shown += [
            f"  {code}: {count:,} ({', '.join(self.first_notices[code][:3])})" for code, count in self.notices.items()
        ]
        columns = Counter(tuple(file.columns.items()) for file in self.files if file.columns)
        shown += [f"columns: {', '.join(f'{role}={name}' for role, name in found)}" for found in columns]
        shown += [f"languages: {_counted(self.languages)}"]
        return shown + ([f"labels: {_counted(self.labels)}"] if self.labels else [])


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name or '(none)'} {count:,}" for name, count in list(counts.items())[:MAX_PLACES]]
    return ", ".join(shown) + (f" and {len(counts) - MAX_PLACES} more" if len(counts) > MAX_PLACES else "")


def check_examples(sources: Mapping[str, ExampleSource]) -> dict[str, ExampleSummary]:
    """Reads data sets to their ends.

    Args:
        sources: By name; the labels of all must occur in the one called "training", if there is one.

    Returns:
        What each holds, by name.

    Raises:
        InputError: Everything that is wrong in all of them: files without any example, labels that training does not
            have, and, of sources with `on_error="fail"`, counts of all records that cannot be used and the first ones
            with file and line; code "bad_examples".
    """
    summaries, problems = {}, []
    for name, source in sources.items():
        try:
            summaries[name] = _Pass().over(source)
        except InputError as error:
            problems.append(f"{name}: {error}")
            continue
        problems += _problems(name, source, summaries[name])
    problems += _foreign_labels(summaries)
    if problems:
        raise InputError("\n".join(problems), code="bad_examples")
    return summaries


def _problems(name: str, source: ExampleSource, summary: ExampleSummary) -> list[str]:
    problems = []
    if not summary.examples:
        problems.append(f"{name}: holds no example that can be used; see its files and on_error=")
    if summary.rejected and source.settings.on_error == "fail":
        counts = ", ".join(f"{code} {count:,}" for code, count in summary.rejected.items())
        problems.append(f"{name}: {sum(summary.rejected.values()):,} records cannot be used ({counts}):")
        # Some of each kind, so that many of one do not hide the others.
        share = max(1, MAX_PLACES // len(summary.rejected))
        shown = [place for places in summary.first_rejected.values() for place in places[:share]]
        problems += [f"  {place}" for place in shown[:MAX_PLACES]]
        problems.append("  repair them, or pass on_error=quarantine to leave them out")
    return problems


def _foreign_labels(summaries: Mapping[str, ExampleSummary]) -> list[str]:
    """Labels that are counted somewhere but not in training."""
    training = summaries.get("training")
    if training is None:
        return []
    problems = []
    for name, summary in summaries.items():
        foreign = {label: count for label, count in summary.labels.items() if label not in training.labels}
        if foreign:
            rule = f"training has {_counted(training.labels) or 'none'}"
            problems.append(f"{name}: labels {_counted(foreign)}, {rule}; correct them, or train on them too")
    return problems


@dataclass(slots=True)
class _Pass:
    """Counts of one pass over one data set."""

    rejected: Counter[str] = field(default_factory=Counter)
    first_rejected: dict[str, list[str]] = field(default_factory=dict)
    notices: Notices = field(default_factory=Notices)
    labels: LabelCounts = field(default_factory=LabelCounts)
    languages: Counter[str] = field(default_factory=Counter)
    files: list[FileSummary] = field(default_factory=list)
    ids: int = 0
    labels_of_files: dict[str, set[str]] = field(default_factory=dict)

    def over(self, source: ExampleSource) -> ExampleSummary:
        for file in source.files:
            self._file(file, source)
        labels = self.labels
        self._compare_labels()
        return ExampleSummary(
            examples=sum(file.examples for file in self.files),
            rejected=dict(sorted(self.rejected.items())),
            first_rejected=self.first_rejected,
            notices=dict(sorted(self.notices.counts.items())),
            first_notices=self.notices.places,
            labels={name: labels.labels[name] for name in labels.names},
            labels_by_language={
                language: {name: counts[name] for name in label_order(counts)}
                for language, counts in sorted(labels.by_language.items())
            },
            languages=dict(sorted(self.languages.items())),
            files=tuple(self.files),
        )

    def _file(self, file: ExampleFile, source: ExampleSource) -> None:
        examples = rejected = 0
        tags, ids, labels = TagCheck(), _Ids(), set[str]()
        for record in read_file(file, source.settings, self.notices):
            if isinstance(record, Rejected):
                rejected += 1
                self._reject(record)
                continue
            examples += 1
            self.languages[record.language] += 1
            self.labels.add(record)
            labels.update(labels_of(record))
            if isinstance(record.gold, WordLabels):
                tags.add(record.gold.labels)
            if self.ids < _MAX_IDS and "id" in file.columns.roles:
                self.ids += 1
                ids.add(record)
        if tags.broken:
            self.notices.add("broken_tags", file.file.path, tags.broken)
        for place in ids.repeated():
            self.notices.add("duplicate_id", f"{file.file.path}:{place}")
        self.labels_of_files[file.file.path] = labels
        self.files.append(_file_summary(file, source, examples, rejected))

    def _compare_labels(self) -> None:
        """Notices labels that may be meant as one, and files that were labelled otherwise."""
        alike: dict[str, list[str]] = {}
        for name in self.labels.labels:
            alike.setdefault(name.strip().casefold(), []).append(name)
        for names in alike.values():
            if len(names) > 1:
                self.notices.add("labels_alike", ", ".join(map(repr, sorted(names))))
        whole = set(self.labels.labels)
        for path, labels in self.labels_of_files.items():
            others = set().union(*(found for other, found in self.labels_of_files.items() if other != path))
            if labels - others and whole - labels:
                self.notices.add("labels_apart", path)

    def _reject(self, record: Rejected) -> None:
        code = record.problem.code
        self.rejected[code] += 1
        shown = self.first_rejected.setdefault(code, [])
        if len(shown) < MAX_PLACES:
            shown.append(f"{record.source} {code}: {record.problem.message}")


def _file_summary(file: ExampleFile, source: ExampleSource, examples: int, rejected: int) -> FileSummary:
    by_name = source.settings.language is None and "language" not in file.columns.roles
    columns = {role: ",".join(names) for role, names in file.columns.roles.items()}
    language = file.language if by_name else ""
    return FileSummary(file.file.path, file.format, language, columns, examples, rejected)


class _Ids:
    """Finds ids that occur again in one file and language: translations share theirs."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._lines = array("q")

    def add(self, example: Example) -> None:
        """Takes the id of one example."""
        self._hashes.append(hash((example.language, example.id)))
        line = example.source.rpartition(":")[2]
        # Inside a JSON document there are no lines: the record's number instead.
        self._lines.append(int(line) if line.isdecimal() else len(self._lines))

    def repeated(self) -> list[int]:
        """Lines of ids that were there before, in order."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        again = order[1:][np.diff(hashes[order]) == 0]
        return sorted(self._lines[at] for at in again.tolist())
