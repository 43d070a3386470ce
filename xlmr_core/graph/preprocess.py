"""Texts to token ids: all that happens before a model is needed.

Letters: R records, M second texts of all records, N tokens of all texts of a view.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from xlmr_core.graph.opened import OpenModels
from xlmr_core.graph.plan import GraphPlan, View
from xlmr_core.tokenization import Encodings
from xlmr_core.tokenization.encoding import bounds
from xlmr_core.tokenization.units import CodePoints, token_spans
from xlmr_core.tokenization.word_starts import word_starts


@dataclass(frozen=True, slots=True)
class EncodedRecords:
    """R records, tokenised once for each view of the plan.

    Attributes:
        views: Token ids without special tokens, one for each view: of the R texts, or of the M second texts.
        starts_word: For views with words, whether a token starts one (N,), as the view tells them apart; None for the
            others.
        second_splits: Record r owns the second texts second_splits[r] to second_splits[r + 1] (R+1,); None when no view
            is of second texts.
        texts: The R texts themselves; None when no task needs them.
        languages: Languages of the R records, None where one is not known; None when no task needs them.
    """

    views: tuple[Encodings, ...]
    starts_word: tuple[np.ndarray | None, ...]
    second_splits: np.ndarray | None = None
    texts: tuple[str, ...] | None = None
    languages: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        # The first view is of texts: an annotation's second texts come after its texts.
        return len(self.views[0])


class Preprocessor:
    """Tokenises records for a plan; holds tokenizers and no weights.

    Args:
        plan: What the records are tokenised for.
        opened: What is open already.
    """

    def __init__(self, plan: GraphPlan, *, opened: OpenModels | None = None) -> None:
        self.plan = plan
        opened = opened or OpenModels()
        models = {view.tokenizer_sha256: view.model for view in plan.views}
        self._tokenizers = {sha256: opened.tokenizer(opened.checkpoint(model)) for sha256, model in models.items()}

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[Sequence[str]] | None = None,
        languages: Sequence[str | None] | None = None,
    ) -> EncodedRecords:
        """Tokenises records.

        Args:
            texts: R texts without lone surrogates (see `text_problem`).
            pairs: The second texts of each of the R records, when the plan was resolved with `pairs=True`.
            languages: The language of each of the R records, as the data calls it; None where it is not known.

        Raises:
            InputError: A text that is no valid Unicode text.
        """
        second = list(chain.from_iterable(pairs or ()))
        encodings: list[Encodings] = []
        starts: list[np.ndarray | None] = []
        for view in self.plan.views:
            encoded, starts_word = self._encode(view, texts if view.side == "text" else second)
            encodings.append(encoded)
            starts.append(starts_word)
        splits = None
        if any(view.side == "second" for view in self.plan.views):
            assert pairs is not None
            splits = bounds(np.fromiter(map(len, pairs), np.int64, len(pairs)))
        readings = [annotation.task.reading for annotation in self.plan.annotations]
        return EncodedRecords(
            views=tuple(encodings),
            starts_word=tuple(starts),
            second_splits=splits,
            texts=tuple(texts) if any(reading.texts for reading in readings) else None,
            languages=tuple(languages) if languages and any(reading.language for reading in readings) else None,
        )

    def _encode(self, view: View, texts: Sequence[str]) -> tuple[Encodings, np.ndarray | None]:
        """Tokens of the texts and, for views with words, which of them start one."""
        # Byte-level tokenizers make tokens of blanks and a prompt makes tokens of nothing; empty is empty all the same.
        texts = [view.prompt + text if text and not text.isspace() else "" for text in texts]
        tokenizer = self._tokenizers[view.tokenizer_sha256]
        encodings = tokenizer.encode(texts, offsets=view.offsets)
        if not view.offsets:
            return encodings, None
        characters = CodePoints.of(texts)
        starts = None
        if view.words == "tokenizer" and tokenizer.begins_word is not None:
            starts = tokenizer.begins_word[encodings.ids]
        elif view.words != "none":
            starts = word_starts(characters, encodings, view.special.unk)
        return replace(encodings, offsets=token_spans(characters, encodings, view.unit)), starts
