"""The recipe of the embedded model `mini`: prepared and measured here, trained by `xlmr pretrain` and `finetune`.

python -m pipelines.finetune.mini prepare --data TRAIN --output WORK     tokenizer, labelled files, two configs
xlmr pretrain --config WORK/pretrain.yaml                                masked words, also of translations
xlmr finetune --config WORK/heads.yaml                                   all heads in one run
python -m pipelines.finetune.mini install --work WORK --output DIR       the model directory, in float16
python -m pipelines.finetune.mini card --work WORK --model DIR ...       what it can do; writes DIR/README.md
"""

import argparse
import hashlib
import json
import logging
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer

from pipelines.finetune.mini_card import write_card
from pipelines.finetune.mini_corpus import FILES, Corpus, choose_languages, read_corpus
from pipelines.finetune.mini_files import write_files
from pipelines.finetune.mini_model import MAX_LENGTH, VOCAB_SIZE, install, write_fresh
from pipelines.finetune.mini_tokenizer import train_tokenizer

logger = logging.getLogger(__name__)

# Folders and files of a working directory.
START, FILES_FOLDER, PRETRAINED, TRAINED = "start", "files", "pretrained", "trained"
TOKENIZER, SUMMARY, PRETRAIN, HEADS = "tokenizer.json", "summary.json", "pretrain.yaml", "heads.yaml"
# On two cores about 18 and 48 minutes of training, at some 14,000 tokens a second.
PRETRAIN_STEPS, HEADS_STEPS = 1_200, 4_200


def prepare(data: Path, output: Path, *, vocab_size: int = VOCAB_SIZE) -> None:
    """Everything that the two runs need; a tokenizer that is there already is kept.

    Args:
        data: Folder with the files of `mini_corpus.FILES`.
        output: Gets the tokenizer, the labelled files, a model of chance and the two configs.
        vocab_size: Pieces of the tokenizer.
    """
    corpus = read_corpus(data)
    languages = choose_languages(corpus.texts.train, min_texts=500, min_bytes=14_000)
    logger.info("%d texts, %d languages", len(corpus.texts.train), len(languages))
    write_files(corpus, languages, output / FILES_FOLDER)
    tokenizer = _tokenizer(corpus, output / TOKENIZER, vocab_size)
    digest = hashlib.sha256()
    for name in FILES:
        digest.update((data / name).read_bytes())
    summary: dict[str, str | int] = {"training_data_sha256": digest.hexdigest(), "max_length": MAX_LENGTH}
    write_fresh(output / START, tokenizer, settings=summary)
    (output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    write_configs(output)


def write_configs(work: Path) -> None:
    """Writes what the two commands are asked for, beside the files that they read."""
    for name, config in ((PRETRAIN, pretrain_config(work)), (HEADS, heads_config(work))):
        (work / name).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _tokenizer(corpus: Corpus, path: Path, vocab_size: int) -> Tokenizer:
    if not path.exists():
        texts = corpus.texts.train
        tokenizer = train_tokenizer(
            [row.text for row in texts],
            [row.language for row in texts],
            vocab_size=vocab_size,
            alpha=0.4,
            sample_chars=20_000_000,
            seed=0,
        )
        tokenizer.save(str(path), pretty=False)
    return Tokenizer.from_file(str(path))


def pretrain_config(work: Path) -> dict[str, object]:
    """What `xlmr pretrain` is asked for: words hidden in texts and in pairs of translations."""
    files = work / FILES_FOLDER
    return {
        "data": {
            "task": "fill-mask",
            "train": [str(files / "masked.parquet"), str(files / "translations.parquet")],
            "batch_tokens": 12_288,
            "sampling": 0.5,
        },
        "model": {"path": str(work / START), "max_length": MAX_LENGTH},
        "training": {
            "steps": PRETRAIN_STEPS,
            "max_tokens": 12_288,
            "learning_rate": 1e-3,
            "warmup": 0.05,
            "weight_decay": 0.01,
            "beta2": 0.98,
            "epsilon": 1e-6,
            "dtype": "bfloat16",
        },
        "output": {"path": str(work / PRETRAINED)},
    }


def heads_config(work: Path) -> dict[str, object]:
    """What `xlmr finetune` is asked for: all heads on the pre-trained encoder, each with batches of its own size."""
    files = work / FILES_FOLDER

    def head(name: str, task: str, records: int, **more: object) -> dict[str, object]:
        train = [str(files / f"{name}.parquet")]
        return {"task": task, "train": train, "batch_records": records, "sampling": 0.5, **more}

    return {
        "heads": {
            "language": head("language", "sequence-classification", 112),
            "topic": head("topic", "sequence-classification", 24),
            "pos": head("pos", "token-classification", 24),
            "entities": head("entities", "token-classification", 24),
            "embedding": head("translations", "embedding", 64),
        },
        "model": {"path": str(work / PRETRAINED / "model"), "max_length": MAX_LENGTH},
        "training": {
            "steps": HEADS_STEPS,
            "max_tokens": 8_192,
            "learning_rate": 5e-4,
            "warmup": 0.05,
            "weight_decay": 0.01,
            "beta2": 0.98,
            "epsilon": 1e-6,
            "dtype": "bfloat16",
        },
        "output": {"path": str(work / TRAINED)},
    }


def main() -> None:
    """One step of the recipe."""
    parser = argparse.ArgumentParser(prog="pipelines.finetune.mini", description="The recipe of `mini`.")
    steps = parser.add_subparsers(dest="step", required=True)
    first = steps.add_parser("prepare", help="tokenizer, labelled files, a model of chance, two configs")
    first.add_argument("--data", type=Path, required=True, help="folder with the training files")
    first.add_argument("--output", type=Path, required=True, help="the working directory")
    third = steps.add_parser("install", help="the trained model in float16")
    third.add_argument("--work", type=Path, required=True, help="the working directory")
    third.add_argument("--output", type=Path, required=True, help="the model directory; must not exist")
    last = steps.add_parser("card", help="measures a model directory and writes its model card")
    last.add_argument("--work", type=Path, required=True, help="the working directory")
    last.add_argument("--model", type=Path, required=True, help="the model directory; gets README.md")
    last.add_argument("--data", type=Path, required=True, help="folder with texts that nothing was trained on")
    last.add_argument("--baselines", type=Path, help="what `python -m benchmarks.baselines` wrote")
    last.add_argument("--before", type=Path, help="figures of another model, to compare with")
    last.add_argument("--transfer", type=Path, help="evaluation.json of the model fine-tuned on English topics")
    last.add_argument("--figures", type=Path, required=True, help="JSON file that gets all figures")
    for step in (first, third, last):
        step.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    match arguments.step:
        case "prepare":
            prepare(arguments.data, arguments.output)
        case "install":
            summary = json.loads((arguments.work / SUMMARY).read_text(encoding="utf-8"))
            install(arguments.work / TRAINED / "model", arguments.output, settings=summary)
        case "card":
            write_card(
                arguments.work,
                arguments.model,
                arguments.data,
                arguments.figures,
                baselines=arguments.baselines,
                before=arguments.before,
                transfer=arguments.transfer,
            )


if __name__ == "__main__":
    main()
