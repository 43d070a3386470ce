"""Extractive question answering: where in a text the answers to a question stand.

Agrees with the `question-answering` pipeline that transformers had until version 5, its defaults included; see
`tasks.answer_spans` for the rules, and for where they are odd. Its `doc_stride` is `stride`, its `max_seq_len` is
`max_length`, its `max_answer_len` is `max_answer_length`, its `handle_impossible_answer` is `impossible`. Questions are
held to limits: one longer than `max_question_length` is refused (there that had no effect), and so is one that leaves
less than a quarter of the window to a longer text; windows move on by a sixteenth of their room at least, where there
the tokenizer panics or goes on token by token.

Letters: W windows, T their tokens, M those of them that are the text's, P annotated records, I items (a text with
one question).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.heads import IGNORED
from xlmr_core.tasks.answer_spans import best_spans, probabilities, rank, spans_in_text
from xlmr_core.tasks.columns import SPAN_TYPES, Column, Field, ListOf, Lists, StructOf
from xlmr_core.tasks.own_head import load_own_head, own_logits
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowedRecords
from xlmr_core.tokenization.encoding import bounds
from xlmr_core.tokenization.units import Unit

# Each of them costs a few spans of every window, so what one record may ask for has an end.
MOST_ANSWERS = 1_000


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Options of a question answering annotation.

    Attributes:
        question: The same question for every record; default: each record's second text.
        several: Whether records bring any number of questions: then there is one list of answers a question.
        top_k: Most answers to a question, 1 to 1,000.
        max_answer_length: Most tokens of an answer, before it is widened to whole words.
        max_question_length: Most tokens of a question; a record with a longer one is refused.
        impossible: Whether "no answer" takes part, as the span from 0 to 0, and is written as `NAME_no_answer`.
        align_to_words: Whether answers are widened to whole words, as the tokenizer cuts words; better switched off
            for languages that are written without blanks.
        offsets: What start and end count: code points of the text, its bytes in UTF-8 or its units in UTF-16.
        max_length: Tokens of a window, question and special tokens included; default: 384, or the checkpoint's limit
            if that is smaller.
        stride: Tokens of the text that neighbouring windows share; default: 128, or half of a window if that is
            smaller.
    """

    question: str | None = None
    several: bool = False
    top_k: int = 1
    max_answer_length: int = 15
    max_question_length: int = 64
    impossible: bool = False
    align_to_words: bool = True
    offsets: Unit = "codepoint"
    max_length: int | None = 384
    stride: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The task; there is nothing of the checkpoint to settle.

    Attributes:
        options: As the user gave them.
    """

    options: AnswerOptions

    head: ClassVar[HeadKind] = "question-answering"
    per_token: ClassVar[bool] = True
    raw_width: ClassVar[int] = 2
    load_head, forward = load_own_head, own_logits

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: AnswerOptions, *, pairs: bool = False) -> "Answer":
        """Checks the options.

        Raises:
            CheckpointError: The checkpoint has no such head.
            TaskError: Limits that leave nothing, a question without a word, a head with other than two outputs.
        """
        problems = [
            f"{name}={value}, it must be at least 1"
            for name in ("top_k", "max_answer_length", "max_question_length")
            if (value := getattr(options, name)) < 1
        ]
        if options.top_k > MOST_ANSWERS:
            problems.append(f"top_k={options.top_k}, it must be at most {MOST_ANSWERS:,}")
        if options.question is not None and not options.question.strip():
            problems.append(f"question={options.question!r}, it must ask something; leave it out to read each record's")
        if options.question is not None and options.several:
            problems.append("question= and several=true, there is one question or there are several; leave one out")
        if (outputs := checkpoint.num_outputs(cls.head)) != 2:
            problems.append(f"its head has {outputs} outputs, it must have two (start, end); use another checkpoint")
        if problems:
            raise TaskError(f"{checkpoint.spec}: " + "; ".join(problems))
        return cls(options)

    @property
    def reading(self) -> Reading:
        """Question and text; only the text is cut into windows."""
        return Reading(
            "question",
            offsets=True,
            fixed=() if self.options.question is None else (self.options.question,),
            words="tokenizer",
            unit=self.options.offsets,
            texts=True,
            most_second=None if self.options.several else 1,
            longest_second=self.options.max_question_length,
        )

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`."""
        answers = ListOf(StructOf(SPAN_TYPES))
        columns = [Field(f"{name}_answers", ListOf(answers) if self.options.several else answers)]
        if self.options.impossible:
            columns.append(Field(f"{name}_no_answer", ListOf("float32") if self.options.several else "float32"))
        return columns

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        names = ("several", "top_k", "max_answer_length", "max_question_length", "impossible", "align_to_words")
        return {name: getattr(self.options, name) for name in names}

    def decode(self, name: str, raw_T2: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Logits of tokens to columns of records."""
        options = self.options
        scores_M2, special_W2 = probabilities(raw_T2, records)
        first_I = np.flatnonzero(np.diff(records.item, prepend=-1))
        no_answer_I = np.minimum.reduceat(special_W2[:, 0] * special_W2[:, 1], first_I) if len(first_I) else np.zeros(0)
        found = best_spans(
            scores_M2,
            records.end - records.start,
            longest=options.max_answer_length,
            # Widening to words makes some of them equal.
            count=2 * options.top_k + 10 if options.align_to_words else options.top_k,
        )
        spans_K2 = spans_in_text(found, records, whole_words=options.align_to_words)
        no_span = no_answer_I if options.impossible else None
        answers: Column = rank(found, spans_K2, records, no_span, options.top_k, options.offsets)
        no_answer: Column = no_answer_I.astype(np.float32)
        if options.several:
            answers, no_answer = Lists(records.item_splits, answers), Lists(records.item_splits, no_answer)
        return {f"{name}_answers": answers} | ({f"{name}_no_answer": no_answer} if options.impossible else {})


def targets(spans: Sequence[tuple[int, int] | None], records: WindowedRecords) -> np.ndarray:
    """Gold answers to the tokens at which they start and end in every window; `<s>` where they are not all inside.

    The rule of transformers' `run_qa.py` for SQuAD 2: from the last token that does not begin behind the answer's
    beginning to the first that does not end before its end. Where a blank's token stands on the character behind it
    that script lets an answer end before it starts; here it then ends where it starts.

    Args:
        spans: Code points of each item's answer in its text, None where there is none (I).
        records: The windows, with offsets in code points.

    Returns:
        Places in each window, counted from its `<s>` (W, 2), int64.

    Raises:
        TaskError: Spans that are not inside their texts; all of them.
    """
    assert records.offsets is not None
    assert records.texts is not None
    lengths_I = [len(records.texts[record]) for record in records.record_of_item.tolist()]
    problems = [
        f"answer {number} from {span[0]} to {span[1]}, its text has the characters 0 to {length}"
        for number, (span, length) in enumerate(zip(spans, lengths_I, strict=True))
        if span is not None and not 0 <= span[0] < span[1] <= length
    ]
    if problems:
        raise TaskError("; ".join(problems) + "; a span is where an answer starts and where it ends, one past its last")
    if not len(records.item):
        return np.zeros((0, 2), dtype=np.int64)
    # No token begins before -1, so no window holds what is not there.
    gold_I2 = np.array([span or (-1, -1) for span in spans], dtype=np.int64)
    sizes_W = records.end - records.start
    first_W = bounds(sizes_W)[:-1]
    offsets_M2 = records.offsets[records.content_tokens()]
    gold_W2 = gold_I2[records.item]
    gold_M2 = np.repeat(gold_W2, sizes_W, axis=0)
    start_W = np.add.reduceat((offsets_M2[:, 0] <= gold_M2[:, 0]).astype(np.int64), first_W) - 1
    end_W = np.add.reduceat((offsets_M2[:, 1] < gold_M2[:, 1]).astype(np.int64), first_W)
    inside_W = (offsets_M2[first_W, 0] <= gold_W2[:, 0]) & (offsets_M2[first_W + sizes_W - 1, 1] >= gold_W2[:, 1])
    text_at_W = 1 if records.text_at is None else records.text_at
    places_W2 = np.stack([start_W + text_at_W, np.maximum(start_W, end_W) + text_at_W], axis=1)
    return np.where(inside_W[:, None], places_W2, 0)


def losses(raw_T2: Tensor, targets_W2: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Cross entropies of start and end of each window, float32.

    The mean is that of `XLMRobertaForQuestionAnswering` without padding.

    Args:
        raw_T2: Start and end logits of the packed windows (T, 2).
        targets_W2: Places in each window (W, 2); one outside of its window, such as -100, takes no part.
        batch: The windows.

    Returns:
        What each window adds to the loss, and how many of its two places count (W,).
    """
    lengths_W = torch.tensor(batch.lengths, device=raw_T2.device)
    inside_WL = torch.arange(batch.max_length, device=raw_T2.device) < lengths_W[:, None]
    logits_WL2 = raw_T2.new_full((*inside_WL.shape, 2), -torch.inf, dtype=torch.float32)
    logits_WL2[inside_WL] = raw_T2.float()
    counts_W2 = (targets_W2 >= 0) & (targets_W2 < lengths_W[:, None])
    gold_W2 = torch.where(counts_W2, targets_W2, IGNORED)
    loss_W2 = F.cross_entropy(logits_WL2, gold_W2, ignore_index=IGNORED, reduction="none")
    return loss_W2.sum(1), counts_W2.sum(1).float()
