"""The recipe of the embedded model `mini`: `python -m pipelines.finetune.mini --data DIR --output DIR`.

One encoder trained from scratch, with a language head and sentence embeddings. Everything that takes time is kept in
the output folder and found again: the tokenizer, the tokenised copy, the checkpoints. The result is the model directory
`model/` in it; `python -m pipelines.finetune.mini_card` measures it and writes its model card.
"""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from pipelines.finetune.batches import Batches, BatchSettings
from pipelines.finetune.data import TokenisedTexts, open_texts, source_digest, write_texts
from pipelines.finetune.loop import LoopSettings, train
from pipelines.finetune.losses import LanguageAndEmbedding, joint_loss
from pipelines.finetune.mini_corpus import FILES, Corpus, choose_labels, number_groups, read_corpus
from pipelines.finetune.mini_export import export_mini
from pipelines.finetune.mini_tokenizer import train_tokenizer
from pipelines.finetune.warm_start import BagOfTokens, start_from_bag
from xlmr_core.config import EncoderConfig
from xlmr_core.errors import InputError
from xlmr_core.tokenization.encoding import SpecialTokens

logger = logging.getLogger(__name__)

VOCAB_SIZE = 32_000
PIVOT = "eng_Latn"
MAX_LENGTH = 128
CONFIG = EncoderConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    # Masked tokens and fragments already vary the texts; dropout would cost time on top.
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
SPECIAL = SpecialTokens(bos=0, eos=2, pad=1, unk=3, mask=VOCAB_SIZE - 1)
BATCHES = BatchSettings(max_tokens=9216, max_joined_length=MAX_LENGTH)
BAG_LOOP = LoopSettings(8000, learning_rate=1e-2, warmup_steps=20, weight_decay=0.0, dtype=torch.float32)


def prepare(data: Path, output: Path) -> tuple[Tokenizer, TokenisedTexts]:
    """Tokenizer and tokenised copy of the training texts, made unless the output folder has them.

    Args:
        data: Folder with the files of `mini_corpus.FILES`.
        output: Gets `tokenizer.json` and `texts/`.
    """
    source = source_digest([data / name for name in FILES], VOCAB_SIZE)
    tokenizer_file = output / "tokenizer.json"
    if tokenizer_file.exists():
        try:
            return Tokenizer.from_file(str(tokenizer_file)), open_texts(output / "texts", source=source)
        except InputError as problem:
            logger.info("%s", problem)
    corpus = read_corpus(data)
    if not tokenizer_file.exists():
        rows = np.flatnonzero(~corpus.held_out).tolist()
        tokenizer = train_tokenizer(
            [corpus.texts[row] for row in rows],
            [corpus.languages[row] for row in rows],
            vocab_size=VOCAB_SIZE,
            alpha=0.4,
            sample_chars=20_000_000,
            seed=0,
        )
        output.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(tokenizer_file), pretty=False)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return tokenizer, _tokenise(corpus, tokenizer, output / "texts", source)


def _tokenise(corpus: Corpus, tokenizer: Tokenizer, folder: Path, source: str) -> TokenisedTexts:
    labels = choose_labels(corpus, min_texts=500, min_bytes=14_000)
    number = {code: index for index, code in enumerate(labels)}
    rows = [row for row, code in enumerate(corpus.languages) if code in number and not corpus.held_out[row]]
    texts = [corpus.texts[row] for row in rows]

    def chunks() -> Iterator[list[np.ndarray]]:
        for start in range(0, len(texts), 8192):
            encodings = tokenizer.encode_batch_fast(texts[start : start + 8192], add_special_tokens=False)
            yield [np.array(encoding.ids, dtype=np.uint16) for encoding in encodings]

    label = np.array([number[corpus.languages[row]] for row in rows])
    group = number_groups([corpus.groups[row] for row in rows])
    return write_texts(folder, chunks(), label=label, group=group, labels=labels, source=source)


def make_batches(tokenizer: Tokenizer, texts: TokenisedTexts, settings: BatchSettings = BATCHES) -> Batches:
    """The numbered batches of the recipe."""
    starts_word = np.zeros(VOCAB_SIZE, dtype=bool)
    starts_word[[index for piece, index in tokenizer.get_vocab().items() if piece.startswith("▁")]] = True
    pivot = texts.labels.index(PIVOT)
    return Batches(texts, SPECIAL, settings, starts_word=starts_word, pivot_label=pivot)


def train_mini(tokenizer: Tokenizer, texts: TokenisedTexts, output: Path, *, steps: int) -> LanguageAndEmbedding:
    """Trains the bag of tokens, then the encoder from it; continues from the checkpoints in the output folder.

    Args:
        tokenizer: See `prepare`.
        texts: See `prepare`.
        output: Gets `bag/` and `encoder/`.
        steps: Optimiser steps of the encoder.
    """
    torch.manual_seed(0)
    bag, model = BagOfTokens(CONFIG, len(texts.labels)), LanguageAndEmbedding(CONFIG, len(texts.labels))
    train(bag, make_batches(tokenizer, texts, replace(BATCHES, seed=1)), joint_loss, BAG_LOOP, output / "bag")
    batches = make_batches(tokenizer, texts)
    start_from_bag(model, bag, batches(0))
    settings = LoopSettings(steps, learning_rate=2e-4, warmup_steps=100, decay_share=0.9)
    loss = partial(joint_loss, contrastive_weight=0.5)
    train(model, batches, loss, settings, output / "encoder")
    return model


def main() -> None:
    """Trains, or continues to train, `mini`."""
    parser = argparse.ArgumentParser(description="Trains the embedded model `mini`.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the training files")
    parser.add_argument("--output", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--steps", type=int, default=1600, help="optimiser steps of the encoder")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    model_directory = arguments.output / "model"
    if model_directory.exists():
        parser.error(f"{model_directory} exists, a finished run is not repeated; delete it to train again")
    tokenizer, texts = prepare(arguments.data, arguments.output)
    logger.info("%d labels, %d texts, %d tokens", len(texts.labels), len(texts), len(texts.ids))
    train_mini(tokenizer, texts, arguments.output, steps=arguments.steps)
    digest = source_digest([arguments.data / name for name in FILES])
    export_mini(
        arguments.output,
        model_directory,
        config=CONFIG,
        labels=texts.labels,
        max_length=MAX_LENGTH,
        training_data=digest,
    )
    logger.info("wrote %s", model_directory)


if __name__ == "__main__":
    main()
