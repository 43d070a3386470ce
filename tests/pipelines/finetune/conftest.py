import numpy as np
import pytest

from pipelines.finetune.batches import Batches, BatchSettings
from pipelines.finetune.data import TokenisedTexts
from xlmr_core.config import EncoderConfig
from xlmr_core.tokenization.encoding import SpecialTokens

SPECIAL = SpecialTokens(bos=0, eos=2, pad=1, unk=3, mask=63)
LABELS = ("aaa_Latn", "bbb_Latn", "eng_Latn")


@pytest.fixture
def config() -> EncoderConfig:
    return EncoderConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        type_vocab_size=1,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
    )


@pytest.fixture
def texts() -> TokenisedTexts:
    """Three toy languages of 40 sentences, each with 18 tokens of its own; sentence n of each says the same."""
    rng = np.random.default_rng(0)
    content = [rng.integers(0, 18, rng.integers(3, 12)) for _ in range(40)]
    rows = [5 + 18 * language + sentence for language in range(3) for sentence in content]
    return TokenisedTexts(
        ids=np.concatenate(rows).astype(np.uint16),
        splits=np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        label=np.repeat(np.arange(3), 40).astype(np.int16),
        group=np.tile(np.arange(40), 3).astype(np.int32),
        labels=LABELS,
    )


@pytest.fixture
def batches(texts: TokenisedTexts) -> Batches:
    settings = BatchSettings(max_tokens=200, max_length=16, max_joined_length=24, epoch_size=60)
    return Batches(texts, SPECIAL, settings, starts_word=np.arange(64) % 2 == 0, pivot_label=2)
