"""Labelled data as users ask for it: the section of configs, and the options of commands; loads nothing that reads."""

from typing import Annotated, Literal

import typer
from pydantic import Field

from pipelines.config import Names, Section, Texts

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

TextColumn = Annotated[
    str | None, typer.Option(help="Column with the text. Default: by its usual names.", show_default=False)
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column with the label. Default: by its usual names.", show_default=False)
]
Language = Annotated[str | None, typer.Option(help="Language of all records.", show_default=False)]
OnError = Annotated[
    str | None, typer.Option(help="Records that cannot be used: fail (default) or quarantine.", show_default=False)
]
Device = Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.", show_default=False)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


class LabelledSection(Section):
    """How labelled files are read. Columns are found by their usual names where they are not named.

    Attributes:
        problem_type: Of sequence classification.
        format: Of every file, instead of what its name and content say.
        language: Of every record, instead of what a column or the file's name says.
        text_column, pair_column, label_column, words_column, tags_column, entities_column, question_column,
            answers_column, language_column, id_column: Which column is what.
        choices_columns: One column with a list of choices, or one a choice.
        positives_column, negatives_column: Texts that fit, and texts that do not, of sentence embeddings.
        first_choice: The number that stands for the first choice.
        label_names: Names of labels that the data gives as numbers from 0.
        word_gap: What stands between words where the data does not tell; "" for scripts without blanks.
        token_index, tag_index: Columns of CoNLL files, from 0 or, negative, from the end.
        quoting: Whether TSV files quote fields; default: as the first ones look.
        on_error: Whether a record that cannot be used ends the run before it begins or is left out.
    """

    problem_type: ProblemType = "single_label_classification"
    format: Literal["jsonl", "json", "csv", "tsv", "parquet", "conll", "conllu", "text", "parallel"] | None = None
    language: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    words_column: str | None = None
    tags_column: str | None = None
    entities_column: str | None = None
    question_column: str | None = None
    answers_column: str | None = None
    choices_columns: Texts | None = None
    positives_column: str | None = None
    negatives_column: str | None = None
    language_column: str | None = None
    id_column: str | None = None
    first_choice: Annotated[int, Field(ge=0, le=1)] = 0
    label_names: Names = ()
    word_gap: str = " "
    token_index: int | None = None
    tag_index: int | None = None
    quoting: bool | None = None
    on_error: Literal["fail", "quarantine"] = "fail"
