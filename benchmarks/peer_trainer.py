"""transformers' `Trainer` on a workload: what ours is compared with."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.runs import Workload
from pipelines.finetune.training_set import TrainingSet


def run_trainer(work: Workload, *, grouped: bool) -> tuple[int, float]:
    """Trains with the defaults, or with batches of like lengths; tokens and seconds of the timed steps."""
    transformers.set_seed(0)
    folder = Path(work.folder)
    data = TrainingSet.open(folder / "data")
    sequences = np.split(data.ids, data.splits[1:-1])
    rows: list[dict[str, Any]] = [{"input_ids": ids.tolist()} for ids in sequences]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    collator: Any = transformers.DataCollatorForLanguageModeling(tokenizer)
    opener: Any = transformers.AutoModelForMaskedLM
    if work.task == "sequence-classification":
        rows = [row | {"labels": int(label)} for row, label in zip(rows, data.targets, strict=True)]
        collator = transformers.DataCollatorWithPadding(tokenizer)
        opener = transformers.AutoModelForSequenceClassification
    clock = _Clock()
    model = opener.from_pretrained(folder / "model")
    model.register_forward_pre_hook(clock.count, with_kwargs=True)
    with TemporaryDirectory(prefix="xlmr-bench-") as output:
        arguments = transformers.TrainingArguments(
            output,
            per_device_train_batch_size=work.batch,
            max_steps=work.steps + 1,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="group_by_length" if grouped else "random",
        )
        trainer = transformers.Trainer(
            model, arguments, data_collator=collator, train_dataset=rows, callbacks=[clock], processing_class=tokenizer
        )
        trainer.train()
    return sum(clock.tokens[1:]), clock.ends[-1] - clock.ends[0]


class _Clock(transformers.TrainerCallback):
    """Counts the real tokens of each step, and notes when it ended."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ends: list[float] = []

    def count(self, model: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.tokens.append(int(named["attention_mask"].sum()))

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        self.ends.append(time.perf_counter())
