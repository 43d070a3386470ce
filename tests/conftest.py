"""What all tests share: where the outside data is, and tiny real checkpoints written by transformers."""

import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
# Real multilingual data beside the checkout; never part of the repository.
SHARED = Path(os.environ.get("XLMR_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of outside data; tests that need it are skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the data folder {SHARED / 'data'}; set XLMR_SHARED to where it is")
    return SHARED / "data"


@pytest.fixture(scope="session")
def sample_texts() -> list[str]:
    """Every text of the sample corpus, in many scripts; some are empty."""
    # Not splitlines(): texts may hold line separators of their own.
    lines = (ROOT / "pipelines/sample/corpus.jsonl").read_text(encoding="utf-8").strip().split("\n")
    return [json.loads(line)["text"] for line in lines]


def unigrams(texts: list[str], size: int) -> list[tuple[str, float]]:
    """Pieces of one to eight characters that cover most text, with the logarithm of their share.

    The trainers of `tokenizers` give another vocabulary each time they run; tests should not.
    """
    words = Counter("\u2581" + word for text in texts for word in unicodedata.normalize("NFKC", text).split())
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + 8, len(word)) + 1):
                counts[word[start:end]] += times
    kept = sorted(counts, key=lambda piece: (len(piece) > 1, -counts[piece] * len(piece), piece))[:size]
    total = sum(counts[piece] for piece in kept)
    return [(piece, math.log(counts[piece] / total)) for piece in kept]


@pytest.fixture(scope="session")
def tokenizer_json(sample_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer built like XLM-R's, for the sample corpus."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [(token, 0.0) for token in special] + unigrams(sample_texts, 3000)
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>")))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One small Ray for the whole run; jobs find it by themselves."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=150 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tokenizer_json: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Writes random checkpoints: `make_checkpoint("XLMRobertaForTokenClassification", labels=[...], seed=0)`."""
    import transformers
    from tokenizers import Tokenizer

    vocab_size = Tokenizer.from_file(str(tokenizer_json)).get_vocab_size()

    def make(architecture: str, *, labels: list[str] | None = None, seed: int = 0, **config: object) -> Path:
        shape: dict[str, object] = {
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 66,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            # Wide enough that random heads prefer some labels clearly.
            "initializer_range": 0.3,
        }
        if labels:
            shape |= {
                "id2label": dict(enumerate(labels)),
                "label2id": {name: i for i, name in enumerate(labels)},
            }
        torch.manual_seed(seed)
        model = getattr(transformers, architecture)(transformers.XLMRobertaConfig(**(shape | config)))
        directory = tmp_path_factory.mktemp("checkpoint")
        model.save_pretrained(directory)
        (directory / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
        tokenizer_config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 64,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
            "cls_token": "<s>",
            "sep_token": "</s>",
        }
        (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
        return directory

    return make
