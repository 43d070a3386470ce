"""What a training run was asked to do: the sections of `xlmr finetune`, read by `pipelines.config.load_config`."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipelines.config import Count, Counts, Factors, Names, Places, Section, Texts
from pipelines.labelled import LabelledSection

Task = Literal[
    "sequence-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "fill-mask",
    "causal-lm",
    "embedding",
]
Rate = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class VectorSection(Section):
    """How sentence vectors are learnt, see `VectorLoss`.

    Attributes:
        loss: "info_nce" for pairs and hard negatives, "cosent" and "cosine_mse" for graded pairs, "margin_mse" and
            "teacher_mse" for what a teacher says.
        scale: Multiplies cosines; one over the temperature.
        symmetric: Whether second texts look for their texts too.
        dimensions: Vectors cut to each of these lengths are learnt as well (Matryoshka).
        dimension_weights: What each of them counts.
        teacher: A model whose vectors are learnt, with "teacher_mse".
        pooling: How tokens become a vector; default: as the model says, else mean.
        normalize: Whether vectors get unit length; default: as the model says, else if the loss compares directions.
        query_prompt, prompt: Put before every text, and before every second text.
    """

    loss: Literal["info_nce", "cosent", "cosine_mse", "margin_mse", "teacher_mse"] = "info_nce"
    scale: Annotated[float, Field(gt=0.0)] = 20.0
    symmetric: bool = False
    dimensions: Counts = ()
    dimension_weights: Factors = ()
    teacher: str | None = None
    pooling: Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] | None = None
    normalize: bool | None = None
    query_prompt: str | None = None
    prompt: str | None = None


class DataSection(LabelledSection):
    """What is learnt, and from what.

    Attributes:
        train: Files, folders and globs.
        parallel: Aligned text files, two by two, for a masked language model: pairs of translations.
        validation: As `train`, for measuring.
        task: What is learnt.
        batch_records: Records of an optimiser step, over all workers; default: the run's.
        batch_tokens: About so many tokens a step instead.
        sampling: Languages are drawn by their number of records to this power: 1 as often as they are there, 0 all
            equally often, XLM-R 0.3; default: every record once an epoch.
        weight: Of its loss among those of several heads.
        metric: Which measure on the validation data decides over the best weights, its mean over the languages;
            default: the task's usual one.
        class_weights: What each label counts in the loss, by name, or "balanced": all labels as much together.
        label_smoothing: Share of a label that is spread over all of them.
        mask_rate: Share of the tokens that a masked language model finds again.
        vectors: How sentence vectors are learnt.
    """

    train: Annotated[Texts, Field(min_length=1, description="--train FILE...")]
    parallel: Texts = ()
    validation: Texts = ()
    task: Annotated[Task, Field(description="--task TASK")]
    batch_records: Count | None = None
    batch_tokens: Count | None = None
    sampling: Share | None = None
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    metric: str | None = None
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    mask_rate: Rate = 0.15
    vectors: VectorSection = VectorSection()


class BaseSection(Section):
    """What is trained.

    Attributes:
        path: The model to start from.
        fresh: Whether its weights are left aside: config and tokenizer make a model that starts from chance.
        max_length: Tokens of a window; default: the model's limit.
        on_long: What to do with longer texts; windows of a text all have its label.
        stride: Tokens that neighbouring windows share; default: the task's.
    """

    path: Annotated[str, Field(min_length=1, description="--model MODEL")]
    fresh: bool = False
    max_length: Annotated[int, Field(ge=8)] | None = None
    on_long: Literal["window", "truncate"] = "window"
    stride: Annotated[int, Field(ge=0)] | None = None


class TrainingSection(Section):
    """How it is trained; the defaults are those of the transformers Trainer.

    Attributes:
        epochs: Passes over the training data; of several heads, over that which has most steps.
        steps: So many optimiser steps instead.
        batch_records: Records of an optimiser step, over all workers.
        max_tokens: Most tokens that a worker computes at once; more are accumulated.
        learning_rate: Highest rate.
        warmup: Share of the steps in which the rate rises; from 1 on, so many steps.
        schedule: How it falls afterwards.
        weight_decay: Of matrices.
        beta1, beta2, epsilon: Of Adam.
        max_grad_norm: Gradients are clipped to this norm; 0 for not.
        dtype: Of the matrix products.
        freeze: What is not trained: "embeddings", "encoder" for all but the heads, or a number of lower layers.
        gradient_checkpointing: Less memory for a third more time: activations are computed again.
        validation_steps: Steps between validations; default: ten in a run.
        validation_records: Most records of each language that are measured while training; default: all, of sentence
            vectors 10,000.
        patience: So many validations without anything better end the run; default: it goes on to its end.
        min_delta: How much better something must be for that.
        seed: Of a fresh head, of the order and of dropout.
    """

    epochs: Annotated[float, Field(gt=0.0)] = 3.0
    steps: Count | None = None
    batch_records: Count = 32
    max_tokens: Annotated[int, Field(ge=8)] = 4_096
    learning_rate: Rate = 5e-5
    warmup: Annotated[float, Field(ge=0.0)] = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Share = 0.0
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: Rate = 1e-8
    max_grad_norm: Annotated[float, Field(ge=0.0)] = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    freeze: Literal["embeddings", "encoder"] | Annotated[int, Field(ge=0)] | None = None
    gradient_checkpointing: bool = False
    validation_steps: Count | None = None
    validation_records: Count | None = None
    patience: Count | None = None
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0


class LoraSection(Section):
    """Low-rank branches that are trained in the place of the encoder; the defaults are those of peft.

    Attributes:
        rank: Of the branches; default: none, the encoder itself is trained.
        alpha: Branches are scaled by alpha / rank.
        dropout: Of what goes into a branch.
        rank_stabilised: Scale by alpha / sqrt(rank) instead.
        targets: Matrices that have branches, by the ends of their names, or "all-linear".
        layers: Only in these layers, counted from 0.
        save: Written "merged" into the model, or as an "adapter" of the base model.
    """

    rank: Count | None = None
    alpha: Annotated[float, Field(gt=0.0)] = 8.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    rank_stabilised: bool = False
    targets: Annotated[Names, Field(min_length=1)] = ("query", "value")
    layers: Places | None = None
    save: Literal["merged", "adapter"] = "merged"


class RunSection(Section):
    """How the work is spread; none of this changes what is learnt, beyond rounding.

    Attributes:
        workers: Processes that train together.
        cpus_per_worker: CPUs that each of them reserves; default: what there is, shared out.
        device: "cpu", "cuda", or "auto" for CUDA where the cluster has GPUs.
        shard: Whether each worker keeps only a part of the weights, gradients and optimiser state (FSDP2), for models
            that are too large for one; else each keeps all of them.
        checkpoint_steps: Steps between checkpoints; default: ten in a run.
        log_steps: Metrics are means over this many steps; default: fifty lines in a run.
        max_failures: So often the workers are started again after one was lost.
        ray_address: A running Ray cluster; default: the one of this process, else a new local one.
    """

    workers: Count = 1
    cpus_per_worker: Annotated[float, Field(gt=0.0)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    shard: bool = False
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


def _head_names(heads: dict[str, DataSection]) -> dict[str, DataSection]:
    odd = [name for name in heads if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or name == "task"]
    if odd:
        raise ValueError(f"named by letters, digits and _, and not {', '.join(odd)}")
    return heads


def _filled(own: Any, shared: Any) -> Any:
    """What one head says, and where it says nothing what all share."""
    if not isinstance(own, dict) or not isinstance(shared, dict):
        return own
    return {**shared, **{name: _filled(value, shared.get(name)) for name, value in own.items()}}


class FinetuneConfig(Section):
    """Everything `xlmr finetune` needs to know.

    Attributes:
        data: What is learnt, when it is one thing; with `heads`, what is the same for all of them.
        heads: What is learnt, by the names of the heads, when it is several things on one encoder.
    """

    data: DataSection | None = None
    heads: Annotated[dict[str, DataSection], AfterValidator(_head_names)] = Field(default_factory=dict)
    model: BaseSection
    training: TrainingSection = TrainingSection()
    lora: LoraSection = LoraSection()
    output: TargetSection
    run: RunSection = RunSection()

    @model_validator(mode="before")
    @classmethod
    def _share_data(cls, values: Any) -> Any:
        """Gives each head what `data` says; without heads there must be data."""
        if not isinstance(values, dict):
            return values
        heads, data = values.get("heads"), values.get("data")
        if not heads:
            # So that what is missing is named as the command line names it.
            return {**values, "data": {} if data is None else data}
        if isinstance(heads, dict) and isinstance(data, dict):
            shared = {name: _filled(own, data) for name, own in heads.items()}
            return {**values, "data": None, "heads": shared}
        return values

    @property
    def goals(self) -> dict[str, DataSection]:
        """What is learnt, by name; a single thing is called "task"."""
        return self.heads or ({} if self.data is None else {"task": self.data})
