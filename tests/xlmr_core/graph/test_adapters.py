"""Several LoRA adapters over one base in one graph: each says what it says alone, and what `peft` says."""

import numpy as np
import peft
import pytest
import torch
import transformers

from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request

# peft asks transformers by a name that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
TEXTS = ["Guten Morgen, Welt!", "早上好，世界", "a sentence in English"]


@pytest.fixture(scope="module")
def adapters(make_checkpoint, tmp_path_factory):
    """A base and three adapters on it; the last one trained the head only."""
    base = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"], seed=11)
    found = {}
    for seed, (name, targets) in enumerate({"one": ["query", "value"], "two": "all-linear", "head": None}.items()):
        torch.manual_seed(seed)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(base)
        chosen = targets or ["classifier.out_proj"]
        lora = peft.LoraConfig(task_type="SEQ_CLS" if targets else None, r=4, lora_alpha=12, target_modules=chosen)
        model = peft.get_peft_model(model, lora).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        found[name] = (tmp_path_factory.mktemp("adapters") / name, model)
        model.save_pretrained(found[name][0])
    return base, found


def test_many_adapters_run_over_one_base_in_one_pass_each(adapters):
    base, found = adapters
    tasks = {"base": base} | {name: directory for name, (directory, _) in found.items()}
    requests = [Request(name, str(path), {"scores": True}) for name, path in tasks.items()]
    plan = GraphPlan.resolve(requests)
    assert len(plan.views) == 1
    encoders = {annotation.name: annotation.encoder_sha256 for annotation in plan.annotations}
    assert encoders["head"] == encoders["base"]
    assert len(set(encoders.values())) == 3
    together = ModelGraph(plan)(Preprocessor(plan)(TEXTS))
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    for name, (_, model) in found.items():
        with torch.inference_mode():
            expected = [model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1).numpy() for text in TEXTS]
        np.testing.assert_allclose(together.columns[f"{name}_scores"], expected, atol=1e-5)
        alone = GraphPlan.resolve([Request(name, str(tasks[name]), {"scores": True})])
        result = ModelGraph(alone)(Preprocessor(alone)(TEXTS))
        np.testing.assert_allclose(together.columns[f"{name}_scores"], result.columns[f"{name}_scores"], atol=1e-6)
