"""A graph over modules in memory answers as one that is loaded, and takes nothing away from them."""

import numpy as np
import torch

from xlmr_core.batch import PackedBatch
from xlmr_core.checkpoint import Checkpoint
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request


def test_modules_in_memory_answer_as_loaded_ones(make_checkpoint, sample_texts):
    model = str(make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"]))
    plan = GraphPlan.resolve(
        [Request("one", model, {"scores": True}), Request("other", model, {"labels": ["x", "y", "z"]})]
    )
    encoded = Preprocessor(plan)(sample_texts[:12])
    checkpoint = Checkpoint.open(model)
    encoder, head = checkpoint.load_encoder().eval(), checkpoint.load_head("sequence-classification").eval()
    live = ModelGraph.of_modules(plan, encoder, {"one": head, "other": head})
    loaded = ModelGraph(plan)
    found, expected = live.forward(encoded), loaded.forward(encoded)
    for name in ("one", "other"):
        # Reordered matrices round differently.
        np.testing.assert_allclose(found.raw[name], expected.raw[name], atol=1e-4)
    assert live(encoded).columns["other_label"] is not None
    with torch.no_grad():
        head.out_proj.bias += torch.tensor([9.0, 0.0, 0.0])
    changed = live.forward(encoded).raw["one"] - found.raw["one"]
    np.testing.assert_allclose(changed, np.tile([9.0, 0.0, 0.0], (len(changed), 1)), atol=1e-5)
    # Another graph beside it loads its own.
    np.testing.assert_array_equal(ModelGraph(plan, loaded=live).forward(encoded).raw["one"], expected.raw["one"])


def test_modules_can_be_trained_after_they_answered(make_checkpoint, sample_texts):
    model = str(make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X"]))
    plan = GraphPlan.resolve([Request("tags", model)])
    encoded = Preprocessor(plan)(sample_texts[:6])
    checkpoint = Checkpoint.open(model)
    encoder, head = checkpoint.load_encoder().eval(), checkpoint.load_head("token-classification").eval()
    ModelGraph.of_modules(plan, encoder, {"tags": head})(encoded)
    ids = np.array([0, 8, 9, 2, 0, 7, 2])
    packed = PackedBatch.from_numpy(ids, np.array([4, 3]), first_position=encoder.config.first_position)
    head(encoder(packed), packed).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert encoder.embeddings.word_embeddings.weight.grad[8].any()
