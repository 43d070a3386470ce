"""What is written for sentence-transformers is opened by it, with the vectors of `annotate`."""

import warnings

import numpy as np
import pytest

from xlmr_core.checkpoint import Checkpoint, TrainedHead, write_model_directory
from xlmr_core.checkpoint.sentence_writing import write_sentence_files
from xlmr_core.graph import GraphPlan, ModelGraph, Preprocessor, Request

PROMPTS = {"query": "sucht: ", "document": "ein Satz: "}


@pytest.fixture(scope="module")
def make_directory(make_checkpoint, tmp_path_factory):
    def make(**settings):
        base = Checkpoint.open(str(make_checkpoint("XLMRobertaModel", seed=5)))
        directory = tmp_path_factory.mktemp("sentence") / "model"
        settings = {"pooling": ["mean"]} | settings
        head = TrainedHead(None, settings=settings, task="embedding")
        write_model_directory(directory, base.load_encoder(), tokenizer=base.tokenizer_directory, head=head)
        if not (directory / "modules.json").exists():
            write_sentence_files(directory, settings, hidden_size=32, max_length=64)
        return directory

    return make


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": ["cls", "mean"], "normalize": True},
        {"prompts": PROMPTS, "default_prompt_name": "document", "normalize": True},
        {"prompts": PROMPTS, "include_prompt": False},
    ],
)
def test_sentence_transformers_opens_it_and_gives_the_vectors_of_annotate(make_directory, sample_texts, settings):
    from sentence_transformers import SentenceTransformer

    directory = make_directory(**settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", category=UserWarning)
        model = SentenceTransformer(str(directory), device="cpu")
    texts = [text for text in sample_texts if text.strip()][:12]
    for name in [None, *settings.get("prompts", {})]:
        expected = model.encode(texts, prompt_name=name)
        options = {} if name is None else {"prompt_name": name}
        plan = GraphPlan.resolve([Request("v", str(directory), options)], on_long="truncate")
        found = ModelGraph(plan)(Preprocessor(plan)(texts)).columns["v"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_it_says_twice_the_same(make_directory):
    """What is read from the files of sentence-transformers alone is what `xlmr.json` says."""
    settings = {"normalize": True, "prompts": PROMPTS, "similarity_fn_name": "dot", "truncate_dim": 16}
    directory = make_directory(**settings)
    both = Checkpoint.open(str(directory)).embedding
    (directory / "xlmr.json").unlink()
    assert Checkpoint.open(str(directory)).embedding == both
