"""Fill mask: which tokens may stand where a text says "<mask>".

Agrees with transformers' `fill-mask` pipeline (5.23) on texts of one window. In a longer text every mask is read in
the window where it has most context (`widest_window`). A text may have several masks; each is answered as if the others
stayed masks.

Targets limit the answers to tokens that the user names; scores stay those of the whole vocabulary. A target is
- a piece of the vocabulary, taken as it is typed, when it begins with the sign for a blank: "▁word" (in byte-level
  vocabularies "Ġword");
- else what the tokenizer makes of it as a text of its own: "word" is the piece "▁word", as it stands behind a blank;
- else a piece as it is typed: "北京" where there is no "▁北京". It goes on where another piece ended, as words do in
  scripts without blanks. Where there are both, "##ing" is the one that goes on and "ing" is "▁ing".
A target that is none of these is refused with the pieces it has. The pipeline takes the first of them and warns; and
its "ing" is the piece that goes on wherever there is one.

Letters: T tokens of all windows, M masks, N tokens of all records, K answers to a mask, V tokens of the vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError
from xlmr_core.tasks.columns import Column, Field, Labels, ListOf, Lists, StructOf, Structs
from xlmr_core.tasks.masked_lm import MaskedLM
from xlmr_core.tasks.reading import Reading
from xlmr_core.tasks.spans import WindowBatch, WindowedRecords
from xlmr_core.tokenization import Tokenizer
from xlmr_core.tokenization.units import Unit

# Most answers to a mask; every token of a batch has room for so many.
_MOST = 1_000
# How a piece is typed that stands behind a blank, and one that goes on where another piece ended.
_BLANK_SIGNS, _GOES_ON = ("▁", "Ġ"), "##"
_PREDICTION = StructOf((("token", "int32"), ("piece", "text"), ("score", "float32")))
_MASK = StructOf((("start", "int32"), ("end", "int32"), ("predictions", ListOf(_PREDICTION))))


@dataclass(frozen=True, slots=True)
class FillMaskOptions:
    """Options of a fill-mask annotation.

    Attributes:
        top_k: Answers to a mask, the most probable first; 1 to 1,000.
        targets: The only answers wanted; default: any token. See the module for how a target names a token.
        offsets: What start and end count: code points of the text, its bytes in UTF-8 or its units in UTF-16.
        max_length: Tokens of a window, special tokens included; default: the checkpoint's limit.
        stride: Tokens that neighbouring windows share.
    """

    top_k: int = 5
    targets: tuple[str, ...] | None = None
    offsets: Unit = "codepoint"
    max_length: int | None = None
    stride: int = 128


@dataclass(frozen=True, slots=True)
class FillMask:
    """The task, bound to one checkpoint's vocabulary.

    Attributes:
        top_k: Answers to a mask, K: never more than there are targets.
        targets: Ids of the only answers wanted, all different; None for any.
        options: As the user gave them.
    """

    top_k: int
    targets: tuple[int, ...] | None
    options: FillMaskOptions

    head: ClassVar[HeadKind] = "masked-lm"
    per_token: ClassVar[bool] = True

    @classmethod
    def bind(cls, checkpoint: Checkpoint, options: FillMaskOptions, *, pairs: bool = False) -> "FillMask":
        """Settles how many answers there are and which tokens the targets name.

        Raises:
            CheckpointError: The checkpoint has no such head.
            TaskError: All that is wrong with the options.
        """
        vocab_size = checkpoint.num_outputs(cls.head)
        top_k, most = options.top_k, min(vocab_size, _MOST)
        targets: tuple[int, ...] | None = None
        problems: list[str] = []
        if options.targets is not None:
            targets, problems = target_ids(options.targets, Tokenizer.load(checkpoint.tokenizer_directory))
            top_k = min(top_k, len(targets)) if targets else top_k
        if not 1 <= top_k <= most:
            problems.append(f"top_k={options.top_k}, it must be from 1 to {most}")
        if problems:
            raise TaskError(f"{checkpoint.spec}: " + "; ".join(problems))
        return cls(top_k, targets, options)

    @property
    def reading(self) -> Reading:
        """The text, with offsets; one without a mask is refused."""
        return Reading(offsets=True, unit=self.options.offsets, needs_mask=True)

    @property
    def raw_width(self) -> int:
        """Ids of the answers, then their probabilities: 2 K."""
        return 2 * self.top_k

    def fields(self, name: str) -> list[Field]:
        """Columns of an annotation called `name`."""
        return [Field(f"{name}_masks", ListOf(_MASK))]

    def facts(self) -> dict[str, object]:
        """All that decides its results besides weights and windows, as plain JSON."""
        return {"top_k": self.top_k, "targets": None if self.targets is None else list(self.targets)}

    def load_head(self, checkpoint: Checkpoint) -> nn.Module:
        """The head's weights, with the vocabulary."""
        return MaskedLM.load(checkpoint)

    def forward(self, head: nn.Module, hidden_TD: Tensor, batch: WindowBatch) -> Tensor:
        """Ids and probabilities of the answers to each mask, zeros for tokens that are none (T, 2 K).

        Ids are exact: float32 holds whole numbers up to 2^24.
        """
        assert isinstance(head, MaskedLM)
        at_M = torch.nonzero(batch.packed.ids == head.mask).squeeze(1)
        answers_TK = hidden_TD.new_zeros(len(hidden_TD), self.raw_width, dtype=torch.float32)
        wanted = None if self.targets is None else torch.tensor(self.targets, device=hidden_TD.device)
        for rows, logits_MV in head(hidden_TD[at_M]):
            offered_MV = logits_MV if wanted is None else logits_MV[:, wanted]
            logits_MK, ids_MK = offered_MV.topk(self.top_k, dim=1)
            scores_MK = (logits_MK - logits_MV.logsumexp(dim=1, keepdim=True)).exp()
            ids_MK = ids_MK if wanted is None else wanted[ids_MK]
            answers_TK[at_M[rows]] = torch.cat([ids_MK.float(), scores_MK], dim=1)
        return answers_TK

    def decode(self, name: str, raw_TK: np.ndarray, records: WindowedRecords, head: nn.Module) -> dict[str, Column]:
        """Answers at masks to columns of records; a mask that `on_long=truncate` cut away has none."""
        assert isinstance(head, MaskedLM)
        assert records.offsets is not None
        at_M = np.flatnonzero(records.ids == head.mask)
        raw_MK = records.stitch_tokens(raw_TK)[at_M]
        tokens = raw_MK[:, : self.top_k].reshape(-1).astype(np.int32)
        distinct, codes = np.unique(tokens, return_inverse=True)
        predictions: dict[str, Column] = {
            "token": tokens,
            "piece": Labels(codes.astype(np.int32), tuple(head.tokenizer.tokens(distinct.tolist()))),
            "score": raw_MK[:, self.top_k :].reshape(-1).astype(np.float32),
        }
        masks: dict[str, Column] = {
            "start": records.offsets[at_M, 0].astype(np.int32),
            "end": records.offsets[at_M, 1].astype(np.int32),
            "predictions": Lists(np.arange(len(at_M) + 1) * self.top_k, Structs(predictions)),
        }
        return {f"{name}_masks": Lists(np.searchsorted(at_M, records.splits), Structs(masks))}


def target_ids(targets: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], list[str]]:
    """The tokens that targets name, as the module says, each once; and what is wrong with the others."""
    if not targets:
        return (), ["no targets, at least one is needed; pass targets=a|b|... or leave it out for any token"]
    found, problems = [], []
    for target in targets:
        token, problem = _target(target, tokenizer)
        found += [] if token is None else [token]
        problems += [] if problem is None else [problem]
    # Two spellings of one token are one answer.
    return tuple(dict.fromkeys(found)), problems


def _target(target: str, tokenizer: Tokenizer) -> tuple[int | None, str | None]:
    """The token of one target, or why it names none."""
    if not target.strip():
        return None, "a target is empty, each must name a token; correct targets="
    as_typed = tokenizer.token_id(target.removeprefix(_GOES_ON))
    if target.startswith((*_BLANK_SIGNS, _GOES_ON)) and as_typed is not None:
        return as_typed, None
    ids = tokenizer.encode([target]).ids.tolist()
    if len(ids) == 1 and ids[0] != tokenizer.special.unk:
        return int(ids[0]), None
    if as_typed is not None and as_typed != tokenizer.special.unk:
        return as_typed, None
    pieces = tokenizer.tokens(ids)
    if tokenizer.special.unk in ids or not ids:
        return None, f"target {target!r} is unknown to the tokenizer, a target must be a token; correct targets="
    said = f"target {target!r} is {len(ids)} tokens ({' '.join(pieces)}), a mask stands for one"
    return None, f"{said}; correct targets=, a piece can be asked for as it is written here, such as {pieces[0]}"


def filled_texts(masks: Sequence[Mapping[str, Any]], text: str, tokenizer: Tokenizer) -> list[Any]:
    """What transformers' `fill-mask` pipeline returns for one text.

    Args:
        masks: The text's value of the column `NAME_masks`, as plain Python.
        text: The text.
        tokenizer: The checkpoint's.

    Returns:
        For one mask a list of dicts with score, token, token_str and sequence, the best first; for several masks a list
        of such lists, in which `sequence` keeps the other masks and with them `<s>` and `</s>`. A sequence is
        decoded from tokens, so that blanks and normalised characters are not those of the text.
    """
    special = tokenizer.special
    ids = [special.bos, *tokenizer.encode([text]).ids.tolist(), special.eos]
    places = [place for place, token in enumerate(ids) if token == special.mask]

    def write(place: int, token: int, score: float) -> dict[str, Any]:
        tokens = [*ids[:place], token, *ids[place + 1 :]]
        kept = [one for one in tokens if one != special.pad]
        sequence = tokenizer.decode(kept, skip_special=len(places) == 1)
        piece = tokenizer.decode([token], skip_special=False)
        return {"score": score, "token": token, "token_str": piece, "sequence": sequence}

    written = [
        [write(place, one["token"], one["score"]) for one in mask["predictions"]]
        for place, mask in zip(places, masks, strict=False)
    ]
    return written[0] if len(places) == 1 and written else written
