"""Learning from texts alone: masked language models, also over pairs of translations, and causal ones.

A text is a sequence of its own, a longer one as many as it fills; packing lays short ones end to end without a token of
padding, so they need not be glued together. A pair of translations is one sequence, `<s> A </s></s> B </s>`, in which
each side can find hidden words of the other, and positions begin anew with B, so that it does not matter which is
longer (TLM, Lample and Conneau 2019).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from pipelines.examples import Example
from pipelines.finetune.objective import Losses
from pipelines.finetune.reading import number_languages, read_portions
from pipelines.finetune.steps import MicroBatch
from pipelines.finetune.training_set import Portion, TrainingSet, join_portions
from xlmr_core.encoder import Encoder
from xlmr_core.errors import InputError
from xlmr_core.heads import MaskedLMHead
from xlmr_core.tasks import masked_lm
from xlmr_core.tokenization import Tokenizer, plan_windows
from xlmr_core.tokenization.packing import Side, content_starts, window_ids


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
        data, refused = read_portions(examples, self._read, "nothing" if self.hiding else "token")
        if self.hiding is None:
            data = replace(data, targets=masked_lm.next_tokens(data.ids, data.lengths))
        return data, refused

    def _read(self, examples: Sequence[Example], languages: dict[str, int]) -> tuple[Portion, dict[int, InputError]]:
        """Texts that stand alone, and pairs, each after their kind."""
        alone = [place for place, example in enumerate(examples) if not example.second]
        paired = [place for place, example in enumerate(examples) if example.second]
        portions: list[Portion] = []
        refused: dict[int, InputError] = {}
        for places in (alone, paired):
            if places:
                portion, unusable = self._cut([examples[place] for place in places], languages)
                refused |= {places[number]: error for number, error in unusable.items()}
                portions.append(portion)
        return join_portions(portions), refused

    def _cut(self, examples: Sequence[Example], languages: dict[str, int]) -> tuple[Portion, dict[int, InputError]]:
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
        portion = Portion(
            ids=ids,
            lengths=windows.length,
            restarts=restarts,
            sequences=np.ones(len(windows), dtype=np.int64),
            language=number_languages(examples, languages)[windows.item],
            targets=np.zeros(0, dtype=np.int64),
        )
        return portion, dict(windows.refused)
