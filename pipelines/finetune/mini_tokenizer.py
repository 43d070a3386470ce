"""The unigram tokenizer of `mini`: XLM-R's scheme with an own vocabulary."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pipelines.finetune.sampling import language_probabilities

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
MAX_PIECE = 12


def train_tokenizer(
    texts: Sequence[str], languages: Sequence[str], *, vocab_size: int, alpha: float, sample_chars: int, seed: int
) -> Tokenizer:
    """Trains on a language-balanced sample.

    Args:
        texts: Training texts.
        languages: Language of each text.
        vocab_size: Pieces in all, special tokens included.
        alpha: Balance of the languages, see `language_probabilities`.
        sample_chars: Size of the sample; training needs about 100 bytes of memory for each character.
        seed: Of the sample.

    Returns:
        Unigram tokenizer: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` last.
    """
    sample = _sample(texts, languages, alpha, sample_chars, np.random.default_rng(seed))
    kept = _alphabet(texts)
    rare = {ord(char): None for char in set().union(*sample) - kept}
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=list(SPECIAL),
        unk_token="<unk>",
        initial_alphabet=sorted(kept - {" "}),
        max_piece_length=MAX_PIECE,
        shrinking_factor=0.6,
        show_progress=False,
    )
    tokenizer = _empty()
    tokenizer.train_from_iterator((text.translate(rare) for text in sample), trainer)
    tokenizer.add_special_tokens([MASK])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _empty() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    # The library's own parts of SentencePiece's nmt_nfkc, so that tokenizer.json alone says everything.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


def _sample(
    texts: Sequence[str], languages: Sequence[str], alpha: float, budget: int, rng: np.random.Generator
) -> list[str]:
    """Texts of each language up to its share of the budget, NFKC-normalised."""
    rows = defaultdict(list)
    for row, language in enumerate(languages):
        rows[language].append(row)
    sizes = np.array([sum(len(texts[row]) for row in members) for members in rows.values()])
    shares = language_probabilities(sizes, alpha) * budget
    sample = []
    for members, share in zip(rows.values(), shares, strict=True):
        for row in rng.permutation(members):
            if share <= 0:
                break
            sample.append(unicodedata.normalize("NFKC", texts[row]))
            share -= len(texts[row])
    return sample


def _alphabet(texts: Sequence[str], *, max_han: int = 4200, max_hangul: int = 1300, min_count: int = 3) -> set[str]:
    """Characters that get a piece: all that are not rare, but only the most frequent Han and Hangul."""
    counts: Counter[str] = Counter()
    for start in range(0, len(texts), 10_000):
        counts.update(unicodedata.normalize("NFKC", " ".join(texts[start : start + 10_000])))
    frequent = [char for char, count in counts.most_common() if count >= min_count and char.isprintable()]
    han = [char for char in frequent if _is_han(char)]
    hangul = [char for char in frequent if "가" <= char <= "힣"]
    return set(frequent) - set(han[max_han:]) - set(hangul[max_hangul:])


def _is_han(char: str) -> bool:
    return "一" <= char <= "鿿" or "㐀" <= char <= "䶿" or char >= "\U00020000"
