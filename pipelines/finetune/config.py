"""What a training run was asked to do: the sections of `xlmr finetune`, read by `pipelines.config.load_config`."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config import Count, Section, Texts

Task = Literal["sequence-classification", "token-classification", "question-answering", "multiple-choice"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Rate = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class LabelledSection(Section):
    """How labelled files are read. Columns are found by their usual names where they are not named.

    Attributes:
        problem_type: Of sequence classification.
        format: Of every file, instead of what its name and content say.
        language: Of every record, instead of what a column or the file's name says.
        text_column, pair_column, label_column, words_column, tags_column, entities_column, question_column,
            answers_column, language_column, id_column: Which column is what.
        choices_columns: One column with a list of choices, or one a choice.
        first_choice: The number that stands for the first choice.
        on_error: Whether a record that cannot be used ends the run before it begins or is left out.
    """

    problem_type: ProblemType = "single_label_classification"
    format: Literal["jsonl", "json", "csv", "tsv", "parquet", "conll", "conllu"] | None = None
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
    language_column: str | None = None
    id_column: str | None = None
    first_choice: Annotated[int, Field(ge=0, le=1)] = 0
    on_error: Literal["fail", "quarantine"] = "fail"


class DataSection(LabelledSection):
    """What is learnt from.

    Attributes:
        train: Files, folders and globs.
        validation: The same, for measuring.
        task: What is learnt.
    """

    train: Annotated[Texts, Field(min_length=1, description="--train FILE...")]
    validation: Texts = ()
    task: Annotated[Task, Field(description="--task TASK")]


class BaseSection(Section):
    """What is trained.

    Attributes:
        path: The model to start from.
        max_length: Tokens of a window; default: the model's limit.
        on_long: What to do with longer texts; windows of a text all have its label.
    """

    path: Annotated[str, Field(min_length=1, description="--model MODEL")]
    max_length: Annotated[int, Field(ge=8)] | None = None
    on_long: Literal["window", "truncate"] = "window"


class TrainingSection(Section):
    """How it is trained; the defaults are those of the transformers Trainer.

    Attributes:
        epochs: Passes over the training data.
        batch_records: Records of an optimiser step, over all workers.
        max_tokens: Most tokens that a worker computes at once; more are accumulated.
        learning_rate: Highest rate.
        warmup: Share of the steps in which the rate rises.
        schedule: How it falls afterwards.
        weight_decay: Of matrices.
        max_grad_norm: Gradients are clipped to this norm; 0 for not.
        dtype: Of the matrix products.
        seed: Of a fresh head, of the order and of dropout.
    """

    epochs: Annotated[float, Field(gt=0.0)] = 3.0
    batch_records: Count = 32
    max_tokens: Annotated[int, Field(ge=8)] = 4_096
    learning_rate: Rate = 5e-5
    warmup: Share = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Share = 0.0
    max_grad_norm: Annotated[float, Field(ge=0.0)] = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0)] = 0


class RunSection(Section):
    """How the work is spread; none of this changes what is learnt, beyond rounding.

    Attributes:
        workers: Processes that train together.
        cpus_per_worker: CPUs that each of them reserves; default: what there is, shared out.
        device: "cpu", "cuda", or "auto" for CUDA where the cluster has GPUs.
        checkpoint_steps: Steps between checkpoints; default: ten in a run.
        log_steps: Metrics are means over this many steps; default: fifty lines in a run.
        max_failures: So often the workers are started again after one was lost.
        ray_address: A running Ray cluster; default: the one of this process, else a new local one.
    """

    workers: Count = 1
    cpus_per_worker: Annotated[float, Field(gt=0.0)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_steps: Count | None = None
    log_steps: Count | None = None
    max_failures: Annotated[int, Field(ge=0)] = 3
    ray_address: str | None = None


class TargetSection(Section):
    """Where the result goes.

    Attributes:
        path: Output directory; one that holds the same run, unfinished, is continued.
    """

    path: Annotated[str, Field(min_length=1, description="--output DIRECTORY")]


class FinetuneConfig(Section):
    """Everything `xlmr finetune` needs to know."""

    data: DataSection
    model: BaseSection
    training: TrainingSection = TrainingSection()
    output: TargetSection
    run: RunSection = RunSection()
