"""Segmentations drawn at random instead of the best one, with the probabilities of SentencePiece.

Source: Kudo 2018, "Subword Regularization"; SentencePiece `unigram_model.cc`, `Lattice::Sample` and `SampleEncode`.
With x the segmentations of a text, P(x) ~ exp(alpha * score(x)), over all of them or over the best N.

The library draws these itself, but (0.23.3) applies `alpha` over and over along a text when it draws from all
segmentations, and takes the N best of each word instead of the whole text. So for the former the scores themselves are
multiplied by `alpha`, and for the latter words are not cut apart. What an unknown character costs, 10 below the worst
piece, is not multiplied then; that matters only where a longer piece holds a character that is no piece itself.
"""

import json
from dataclasses import dataclass

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

# Makes segmentations equally likely to one part in a million.
_ALMOST_ZERO = 1e-9


@dataclass(frozen=True, slots=True)
class Sampler:
    """The parts of a tokenizer that make it draw."""

    model: models.Model
    normalizer: normalizers.Normalizer | None
    pre_tokenizer: pre_tokenizers.PreTokenizer | None


def unigram_sampler(library: tokenizers.Tokenizer, *, nbest_size: int, alpha: float) -> Sampler | None:
    """What makes a tokenizer like XLM-R's draw segmentations; None for one that is no unigram tokenizer.

    Args:
        library: Stays as it is.
        nbest_size: From how many of the best segmentations to draw; below 0 from all.
        alpha: 0 makes them all equally likely, larger values prefer the better ones.
    """
    if not isinstance(library.model, models.Unigram):
        return None
    state = json.loads(library.model.__getstate__())
    # With alpha = 1 the library's formula is right; it takes 0 for "do not draw".
    scale, smoothing = (alpha, 1.0) if nbest_size < 0 else (1.0, max(alpha, _ALMOST_ZERO))
    model = models.Unigram(
        [(piece, scale * score) for piece, score in state["vocab"]],
        unk_id=state["unk_id"],
        byte_fallback=state["byte_fallback"],
        alpha=smoothing,
        nbest_size=None if nbest_size < 0 else nbest_size,
    )
    if nbest_size < 0:
        return Sampler(model, library.normalizer, library.pre_tokenizer)
    squeeze = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    return Sampler(
        model,
        normalizers.Sequence([*([] if library.normalizer is None else [library.normalizer]), *squeeze]),
        pre_tokenizers.Metaspace(split=False),
    )
