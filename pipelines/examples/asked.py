"""From what a config says of labelled files to how they are read."""

from pipelines.examples import ExampleColumns, ReadSettings
from pipelines.examples.example import Task
from pipelines.labelled import LabelledSection

_COLUMNS = (
    *("text", "pair", "label", "words", "tags", "entities", "question", "answers", "positives", "negatives"),
    *("language", "id"),
)


def read_settings(section: LabelledSection, task: Task) -> ReadSettings:
    """The settings of the readers."""
    columns = {f"{role}_column": getattr(section, f"{role}_column") for role in _COLUMNS}
    return ReadSettings(
        task=task,
        problem_type=section.problem_type,
        columns=ExampleColumns(**columns, choices_columns=section.choices_columns),
        format=section.format,
        language=section.language,
        on_error=section.on_error,
        first_choice=section.first_choice,
        label_names=section.label_names,
        word_gap=section.word_gap,
        token_index=section.token_index,
        tag_index=section.tag_index,
        quoting=section.quoting,
    )
