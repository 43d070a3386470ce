"""Texts to token ids: all that happens before a model is needed.

Letters: R records, M second texts of all records, N tokens of all texts of a view.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.graph.plan import GraphPlan, View
from xlmr_core.tokenization import Encodings, Tokenizer
from xlmr_core.tokenization.encoding import bounds

# The characters for which str.isspace() holds, as code points.
SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class EncodedRecords:
    """R records, tokenised once for each view of the plan.

    Attributes:
        views: Token ids without special tokens, one for each view: of the R texts, or of the M second texts.
        starts_word: For views with offsets, whether a token starts a word (N,); None for the others.
        second_splits: Record r owns the second texts second_splits[r] to second_splits[r + 1] (R+1,); None when no view
            is of second texts.
    """

    views: tuple[Encodings, ...]
    starts_word: tuple[np.ndarray | None, ...]
    second_splits: np.ndarray | None = None

    def __len__(self) -> int:
        # The first view is of texts: an annotation's second texts come after its texts.
        return len(self.views[0])


class Preprocessor:
    """Tokenises records for a plan; holds tokenizers and no weights.

    Args:
        plan: What the records are tokenised for.
    """

    def __init__(self, plan: GraphPlan) -> None:
        self.plan = plan
        models = {view.tokenizer_sha256: view.model for view in plan.views}
        self._tokenizers = {
            sha256: Tokenizer.load(Checkpoint.open(model).tokenizer_directory) for sha256, model in models.items()
        }

    def __call__(self, texts: Sequence[str], pairs: Sequence[Sequence[str]] | None = None) -> EncodedRecords:
        """Tokenises records.

        Args:
            texts: R texts without lone surrogates (see `text_problem`).
            pairs: The second texts of each of the R records, when the plan was resolved with `pairs=True`.

        Raises:
            InputError: A text that is no valid Unicode text.
        """
        second = list(chain.from_iterable(pairs or ()))
        encodings, starts = [], []
        for view in self.plan.views:
            chosen = texts if view.side == "text" else second
            encodings.append(self._encode(view, chosen))
            starts.append(word_starts(chosen, encodings[-1], view.special.unk) if view.offsets else None)
        splits = None
        if any(view.side == "second" for view in self.plan.views):
            assert pairs is not None
            splits = bounds(np.fromiter(map(len, pairs), np.int64, len(pairs)))
        return EncodedRecords(tuple(encodings), tuple(starts), splits)

    def _encode(self, view: View, texts: Sequence[str]) -> Encodings:
        # Byte-level tokenizers make tokens of blanks and a prompt makes tokens of nothing; empty is empty all the same.
        texts = [view.prompt + text if text and not text.isspace() else "" for text in texts]
        return self._tokenizers[view.tokenizer_sha256].encode(texts, offsets=view.offsets)


def word_starts(texts: Sequence[str], encodings: Encodings, unk: int) -> np.ndarray:
    """Whether each token starts a word (N,), bool: at the text's beginning, or after or at white space.

    An unknown token always does; that is transformers' rule too.
    """
    assert encodings.offsets is not None
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    # One space before each text makes "the text's beginning" the same case as "after a space".
    joined = np.frombuffer((" " + " ".join(texts)).encode("utf-32-le"), dtype=np.uint32)
    is_space = np.isin(joined, SPACES)
    text_begins = np.cumsum(lengths + 1) - lengths
    begin = encodings.offsets[:, 0] + np.repeat(text_begins, np.diff(encodings.splits))
    starts: np.ndarray = (encodings.ids == unk) | is_space[begin - 1] | is_space[np.minimum(begin, len(joined) - 1)]
    return starts
