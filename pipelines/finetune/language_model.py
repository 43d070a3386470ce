"""Learning from texts alone: masked language models, also over pairs of translations, and causal ones.

A text is a sequence of its own, a longer one as many as it fills; packing lays short ones end to end without a token of
padding, so they need not be glued together. A pair of translations is one sequence, `<s> A </s></s> B </s>`, in which
each side can find hidden words of the other, and positions begin anew with B, so that it does not matter which is
longer (TLM, Lample and Conneau 2019).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import nn

from pipelines.examples import Example
from pipelines.finetune.objective import Losses
from pipelines.finetune.steps import MicroBatch
from pipelines.finetune.training_set import Portion, TrainingSet, join
from xlmr_core.encoder import Encoder
from xlmr_core.errors import InputError
from xlmr_core.heads import MaskedLMHead
from xlmr_core.tasks import masked_lm
from xlmr_core.tokenization import Tokenizer, plan_windows
from xlmr_core.tokenization.packing import Side, content_starts, window_ids

_PORTION = 2_000


@dataclass(frozen=True, slots=True)
class Hiding:
    """Dynamic masking of a vocabulary, see `masked_lm.hide_tokens`.

    Attributes:
        mask: Id of the mask.
        special: Ids of special tokens, which stay.
        replacements: Ids that random tokens are drawn from.
        rate: Share of the ordinary tokens that is hidden.
    """

    mask: int
    special: np.ndarray
    replacements: np.ndarray
    rate: float = 0.15

    @classmethod
    def of(cls, tokenizer: Tokenizer, rate: float) -> "Hiding":
        """For the vocabulary of a tokenizer.

        Raises:
            InputError: It has no mask token.
        """
        ids = tokenizer.special
        if ids.mask is None:
            raise InputError("the tokenizer has no mask token, a masked language model needs one", code="no_mask")
        special = np.array([ids.bos, ids.eos, ids.pad, ids.unk, ids.mask])
        return cls(ids.mask, special, np.setdiff1d(np.arange(tokenizer.vocab_size), special), rate)

    def __call__(self, data: TrainingSet, rng: np.random.Generator) -> TrainingSet:
        """The same sequences with hidden tokens, which are the targets."""
        hidden, targets = masked_lm.hide_tokens(
            data.ids,
            np.isin(data.ids, self.special),
            rng,
            mask=self.mask,
            replacements=self.replacements,
            rate=self.rate,
        )
        return replace(data, ids=hidden, targets=targets, per="token")


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """Texts that are their own targets.

    Attributes:
        tokenizer: Of the model.
        max_length: Tokens of a sequence, special tokens included.
        hiding: What a masked language model finds again; None for a causal one, which goes on.
    """

    tokenizer: Tokenizer
    max_length: int
    hiding: Hiding | None = None

    def losses(self, encoder: Encoder, head: nn.Module, batch: MicroBatch) -> Losses:
        """Forward pass and loss of a micro-batch; logits exist for its targets alone."""
        assert isinstance(head, MaskedLMHead)
        mean, of_targets_M = masked_lm.losses(head, encoder(batch.packed), batch.targets)
        return Losses(mean, of_targets_M, torch.ones_like(of_targets_M))

    def training_set(self, examples: Iterable[Example]) -> tuple[TrainingSet, dict[int, InputError]]:
        """Tokenises and cuts texts; every window is a record.

        Returns:
            The set, and pairs that are too long together, by number: half a translation explains nothing.

        Raises:
            InputError: There is no text.
        """
        portions: list[Portion] = []
        refused: dict[int, InputError] = {}
        names: dict[str, int] = {}
        first, source = 0, iter(examples)
        while some := list(islice(source, _PORTION)):
            alone = [place for place, example in enumerate(some) if not example.second]
            paired = [place for place, example in enumerate(some) if example.second]
            for places in (alone, paired):
                if places:
                    portion, unusable = self._read([some[place] for place in places], names)
                    refused |= {first + places[number]: error for number, error in unusable.items()}
                    portions.append(portion)
            first += len(some)
        if not any(len(portion.sequences) for portion in portions):
            raise InputError("there is no usable text, training needs some; check the files", code="no_examples")
        data = join(portions, tuple(names), "nothing" if self.hiding else "token")
        if self.hiding is None:
            data = replace(data, targets=masked_lm.next_tokens(data.ids, data.lengths))
        return data, refused

    def _read(self, examples: Sequence[Example], names: dict[str, int]) -> tuple[Portion, dict[int, InputError]]:
        number = np.arange(len(examples))
        text = Side(self.tokenizer.encode([example.text for example in examples]), number)
        second = None
        if examples[0].second:
            second = Side(self.tokenizer.encode([example.second[0] for example in examples]), number)
        windows = plan_windows(
            text.lengths,
            None if second is None else second.lengths,
            limit=self.max_length,
            stride=0,
            on_long="window" if second is None else "error",
        )
        order = np.arange(len(windows))
        ids, _ = window_ids(text, windows, order, self.tokenizer.special, second=second)
        restarts = np.zeros(len(windows), dtype=np.int32)
        if second is not None:
            # The second `</s>` of the two between belongs to B, as in fairseq.
            restarts = content_starts(windows, text_first=True)[1] - 1
        languages = [names.setdefault(example.language, len(names)) for example in examples]
        portion = Portion(
            ids=ids,
            lengths=windows.length,
            restarts=restarts,
            sequences=np.ones(len(windows), dtype=np.int64),
            language=np.array(languages, dtype=np.int32)[windows.item],
            targets=np.zeros(0, dtype=np.int64),
        )
        return portion, dict(windows.refused)
