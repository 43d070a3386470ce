"""From the recipe's last checkpoint to the model directory `mini`, whole or not at all."""

import json
import shutil
import tempfile
from pathlib import Path

import torch

from pipelines.finetune.loop import CHECKPOINT
from pipelines.finetune.losses import LanguageAndEmbedding
from xlmr_core.checkpoint import TrainedHead, write_model_directory
from xlmr_core.config import EncoderConfig

TOKENIZER_CONFIG = {
    # The class that takes tokenizer.json as it is; XLMRobertaTokenizer would put its own normaliser into it.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "model_input_names": ["input_ids", "attention_mask"],
}


def export_mini(
    work: Path,
    directory: Path,
    *,
    config: EncoderConfig,
    labels: tuple[str, ...],
    max_length: int,
    training_data: str,
) -> None:
    """Writes the model directory with the heads `language` and `embedding`, weights in float16.

    Args:
        work: Output folder of the recipe: `encoder/checkpoint.pt` and `tokenizer.json`.
        directory: Where to; must not exist yet or be empty.
        config: Shape of the encoder.
        labels: Languages, in the order of the head's outputs.
        max_length: Longest sequence it was trained on, tokens, special tokens included.
        training_data: Digest of the training files, for `xlmr.json`.
    """
    model = LanguageAndEmbedding(config, len(labels))
    state = torch.load(work / "encoder" / CHECKPOINT, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    extend_positions(model, last=max_length + config.pad_token_id)
    with tempfile.TemporaryDirectory() as name:
        tokenizer = Path(name)
        shutil.copyfile(work / "tokenizer.json", tokenizer / "tokenizer.json")
        content = {**TOKENIZER_CONFIG, "model_max_length": max_length}
        (tokenizer / "tokenizer_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        write_model_directory(
            directory,
            model.encoder,
            tokenizer=tokenizer,
            heads={
                "language": TrainedHead(model.language, labels, "single_label_classification"),
                "embedding": TrainedHead(None, settings={"pooling": ["mean"], "normalize": True}),
            },
            settings={"max_length": max_length, "training_data_sha256": training_data},
            dtype=torch.float16,
        )


@torch.no_grad()
def extend_positions(model: LanguageAndEmbedding, *, last: int) -> None:
    """Copies the last trained row of the position table to all behind it, so that no row is noise; in place."""
    table = model.encoder.embeddings.position_embeddings.weight
    table[last + 1 :] = table[last]
