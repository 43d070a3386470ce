"""Random checkpoints of real shapes, written once by `transformers` and kept in the user's cache."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

import xlmr_core.config
from benchmarks.corpus import sample_texts
from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.heads import SequenceHead, TokenHead

LABELS = ("sport", "politics", "science", "health", "travel", "culture", "economy", "other")
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}

_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
_VOCABULARY = 8_000
_SPREAD = 1.7


def classifier(shape: dict[str, int]) -> Path:
    """A random `XLMRobertaForSequenceClassification` with the labels `LABELS` and a tokenizer; see `random_model`."""
    return random_model("XLMRobertaForSequenceClassification", shape, LABELS)


def random_model(
    architecture: str,
    shape: dict[str, int],
    labels: Sequence[str] = (),
    *,
    spread: float = _SPREAD,
    vocabulary: int | None = None,
) -> Path:
    """A random checkpoint with a tokenizer.

    Args:
        architecture: Name of a class of transformers.
        shape: What its config says of the encoder's shape, as `BASE`.
        labels: Names of the head's outputs.
        spread: Standard deviation of the weights times the root of the width. The usual 0.02 is 0.55 in the base
            shape, at which `<s>` is alike in all texts; at 1 and more, the tokens of one text are, as each layer
            halves what is their own, so that rounding would choose between them.
        vocabulary: Rows of the word embedding table; default: the tokens that the tokenizer has.

    Returns:
        The model directory.
    """
    content = _tokenizer_json()
    rows = vocabulary or tokenizers.Tokenizer.from_str(content).get_vocab_size()
    values: dict[str, Any] = shape | {"vocab_size": rows, "type_vocab_size": 1}
    values |= {"initializer_range": spread / shape["hidden_size"] ** 0.5}
    values |= {"max_position_embeddings": 514, "layer_norm_eps": 1e-5}
    if labels:
        values["id2label"] = dict(enumerate(labels))
        values["label2id"] = {name: index for index, name in enumerate(labels)}
    target = _cache() / f"{architecture}-{_digest(content, json.dumps(values, sort_keys=True))}"
    if target.exists():
        return target
    config = transformers.XLMRobertaConfig(**values)
    torch.manual_seed(0)
    draft = Path(mkdtemp(dir=_cache()))
    getattr(transformers, architecture)(config).save_pretrained(draft)
    (draft / "tokenizer.json").write_text(content, encoding="utf-8")
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **_SPECIAL}
    (draft / "tokenizer_config.json").write_text(json.dumps(facts))
    return _keep(draft, target)


def four_heads(directory: Path) -> Path:
    """The encoder of a classifier with four random heads: label, tags, number and vector.

    Args:
        directory: From `classifier`.

    Returns:
        A model directory whose heads are opened as `DIR#label` and so on.
    """
    target = _cache() / f"heads-{directory.name}"
    if target.exists():
        return target
    checkpoint = Checkpoint.open(str(directory))
    config = checkpoint.config
    torch.manual_seed(1)
    heads = {
        "label": TrainedHead(checkpoint.load_head("sequence-classification"), LABELS),
        "tags": TrainedHead(TokenHead(config, len(TAGS)), TAGS),
        "number": TrainedHead(SequenceHead(config, 1), ("number",), "regression"),
        "vector": TrainedHead(None, settings={"pooling": ["mean"], "normalize": True}),
    }
    write_model_directory(target, checkpoint.load_encoder(), tokenizer=directory, heads=heads)
    return target


def _tokenizer_json() -> str:
    """The embedded model's tokenizer; where there is none, one of the same kind trained on the sample corpus."""
    embedded = Path(xlmr_core.config.__file__).with_name("mini") / "tokenizer.json"
    if embedded.is_file():
        return embedded.read_text(encoding="utf-8")
    texts = sample_texts()
    # Training is not repeatable to the last bit, and the checkpoints' names follow from the content.
    kept = _cache() / f"tokenizer-{_digest(*texts)}.json"
    if not kept.exists():
        draft = kept.with_suffix(f".{os.getpid()}")
        draft.write_text(_train_tokenizer(texts), encoding="utf-8")
        draft.rename(kept)
    return kept.read_text(encoding="utf-8")


def _train_tokenizer(texts: list[str]) -> str:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=_VOCABULARY, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return str(tokenizer.to_str())


def _cache() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlmr-bench"
    root.mkdir(parents=True, exist_ok=True)
    return root


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join((*parts, transformers.__version__)).encode()).hexdigest()[:12]


def _keep(draft: Path, target: Path) -> Path:
    """Gives a finished directory its name, unless another process was first."""
    try:
        draft.rename(target)
    except OSError:
        shutil.rmtree(draft)
        if not target.exists():
            raise
    return target
