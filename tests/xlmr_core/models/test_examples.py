"""What one does with each documented class, beside transformers with the same weights and inputs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers

import xlmr_core

TOLERANCE = 1e-5
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    # Wide enough that random heads prefer some labels clearly.
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
MERGES = ["Ġ t", "h e", "Ġt he", "l l", "Ġ a", "i n", "e r", "Ġ w", "o r"]
LABELS = {0: "low", 1: "middle", 2: "high"}


class Opened(NamedTuple):
    """A checkpoint directory, opened by us and by transformers."""

    ours: Any
    theirs: Any
    tokenizer: Any
    directory: Path


@pytest.fixture(scope="module")
def byte_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa vocabulary of all bytes and a few merges."""
    folder = tmp_path_factory.mktemp("bytes")
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [merge.replace(" ", "") for merge in MERGES] + ["<mask>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(params=["XLMRoberta", "Roberta"])
def opened(
    request: pytest.FixtureRequest, tokenizer_json: Path, byte_files: Path, tmp_path: Path
) -> Callable[..., Opened]:
    """Makes and opens a random checkpoint: `opened("ForMaskedLM")`, in either family."""
    family = request.param
    files = [tokenizer_json] if family == "XLMRoberta" else list(byte_files.iterdir())

    def make(head: str, **settings: Any) -> Opened:
        for file in files:
            shutil.copy(file, tmp_path)
        described = {"tokenizer_class": f"{family}Tokenizer", "model_max_length": 128}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(described))
        tokenizer = getattr(xlmr_core, f"{family}TokenizerFast").from_pretrained(tmp_path)
        config = getattr(transformers, f"{family}Config")(**SHAPE | {"vocab_size": len(tokenizer)} | settings)
        torch.manual_seed(0)
        theirs = getattr(transformers, family + head)(config).eval()
        theirs.save_pretrained(tmp_path)
        ours = getattr(xlmr_core, family + head).from_pretrained(tmp_path)
        return Opened(ours, theirs, xlmr_core.AutoTokenizer.from_pretrained(tmp_path), tmp_path)

    return make


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


def test_a_bare_encoder_gives_a_vector_for_each_token(opened: Callable[..., Opened]) -> None:
    ours, theirs, tokenizer, directory = opened("Model")
    inputs = tokenizer(["Hello, my dog is cute", "Hello"], padding=True, return_tensors="pt")
    with torch.no_grad():
        found, expected = ours(**inputs), theirs(**inputs)
    rows, columns = inputs["input_ids"].shape
    assert found.last_hidden_state.shape == (rows, columns, SHAPE["hidden_size"])
    real = inputs["attention_mask"].bool()
    assert not real.all()
    close(found.last_hidden_state[real], expected.last_hidden_state[real])
    close(found.pooler_output, expected.pooler_output)
    automatic = xlmr_core.AutoModel.from_pretrained(directory)
    assert type(automatic) is type(ours)
    close(automatic(**inputs).pooler_output.detach(), found.pooler_output)


def test_a_causal_model_scores_the_next_token_by_those_before(opened: Callable[..., Opened]) -> None:
    _, theirs, tokenizer, directory = opened("ForCausalLM", is_decoder=True)
    config = xlmr_core.AutoConfig.from_pretrained(directory)
    assert config.is_decoder
    ours = xlmr_core.AutoModelForCausalLM.from_pretrained(directory, config=config)
    inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
    with torch.no_grad():
        found = ours(**inputs, labels=inputs["input_ids"])
        expected = theirs(**inputs, labels=inputs["input_ids"], use_cache=False)
        changed = inputs["input_ids"].clone()
        changed[0, -1] = 5
        other = ours(input_ids=changed)
    assert found.logits.shape == (*inputs["input_ids"].shape, len(tokenizer))
    close(found.logits, expected.logits)
    close(found.loss, expected.loss)
    close(other.logits[:, :-1], found.logits[:, :-1])
    assert not torch.allclose(other.logits[:, -1], found.logits[:, -1])


def test_a_masked_word_is_predicted(opened: Callable[..., Opened]) -> None:
    ours, theirs, tokenizer, _ = opened("ForMaskedLM")
    inputs = tokenizer("The capital of France is <mask>.", return_tensors="pt")
    masks = inputs["input_ids"] == tokenizer.mask_token_id
    assert masks.sum() == 1
    labels = torch.where(masks, tokenizer.convert_tokens_to_ids(tokenizer.tokenize("the")[-1]), -100)
    with torch.no_grad():
        found, expected = ours(**inputs, labels=labels), theirs(**inputs, labels=labels)
    predicted = found.logits[masks].argmax(-1)
    assert predicted.equal(expected.logits[masks].argmax(-1))
    assert tokenizer.decode(predicted) == tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(predicted))
    close(found.loss, expected.loss)
    close(found.loss, -found.logits[masks].log_softmax(-1)[0, labels[masks].item()])


def test_a_text_is_given_one_label(opened: Callable[..., Opened]) -> None:
    ours, theirs, tokenizer, directory = opened("ForSequenceClassification", id2label=LABELS)
    inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
    with torch.no_grad():
        found = ours(**inputs, labels=torch.tensor([1]))
        expected = theirs(**inputs, labels=torch.tensor([1]))
    assert found.logits.shape == (1, 3)
    assert ours.config.id2label == LABELS
    assert found.logits.argmax() == expected.logits.argmax()
    close(found.loss, expected.loss)
    assert ours.config.problem_type == "single_label_classification"
    with pytest.warns(UserWarning, match=r"classifier\.out_proj\.weight"):
        wider = type(ours).from_pretrained(directory, num_labels=5, ignore_mismatched_sizes=True)
    assert wider(**inputs).logits.shape == (1, 5)


def test_a_text_is_given_several_labels(opened: Callable[..., Opened]) -> None:
    several = "multi_label_classification"
    _, theirs, tokenizer, directory = opened("ForSequenceClassification", id2label=LABELS, problem_type=several)
    ours = xlmr_core.AutoModelForSequenceClassification.from_pretrained(directory, problem_type=several)
    inputs = tokenizer(["Hello, my dog is cute", "Good morning"], padding=True, return_tensors="pt")
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    with torch.no_grad():
        found, expected = ours(**inputs, labels=labels), theirs(**inputs, labels=labels)
    assert (found.logits.sigmoid() > 0.5).equal(expected.logits.sigmoid() > 0.5)
    close(found.logits, expected.logits)
    close(found.loss, expected.loss)


def test_the_better_choice_is_found(opened: Callable[..., Opened]) -> None:
    ours, theirs, tokenizer, _ = opened("ForMultipleChoice")
    prompt = "In Italy, pizza is presented unsliced."
    choices = ["It is eaten with a fork and a knife.", "It is eaten in the hand."]
    encoding = tokenizer([prompt, prompt], choices, return_tensors="pt", padding=True)
    inputs = {key: value.unsqueeze(0) for key, value in encoding.items()}
    with torch.no_grad():
        found = ours(**inputs, labels=torch.tensor([0]))
        expected = theirs(**inputs, labels=torch.tensor([0]))
    assert found.logits.shape == (1, 2)
    assert found.logits.argmax() == expected.logits.argmax()
    close(found.logits, expected.logits)
    close(found.loss, expected.loss)


def test_each_token_is_given_a_label(opened: Callable[..., Opened]) -> None:
    ours, theirs, tokenizer, _ = opened("ForTokenClassification", id2label=LABELS)
    text = "A company based in Paris and New York"
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    assert tokenizer.bos_token_id not in inputs["input_ids"]
    with torch.no_grad():
        logits, expected = ours(**inputs).logits, theirs(**inputs).logits
    classes = logits.argmax(-1)
    assert classes.equal(expected.argmax(-1))
    names = [ours.config.id2label[each.item()] for each in classes[0]]
    assert len(names) == len(tokenizer.tokenize(text))
    assert set(names) <= set(LABELS.values())
    close(logits, expected)
    with torch.no_grad():
        close(ours(**inputs, labels=classes).loss, theirs(**inputs, labels=classes).loss)


def test_an_answer_is_cut_out_of_the_text(opened: Callable[..., Opened]) -> None:
    ours, theirs, tokenizer, _ = opened("ForQuestionAnswering")
    inputs = tokenizer("Who was Jim Henson?", "Jim Henson was a nice puppet", return_tensors="pt")
    right = {"start_positions": torch.tensor([14]), "end_positions": torch.tensor([15])}
    with torch.no_grad():
        found, expected = ours(**inputs, **right), theirs(**inputs, **right)
    assert found.start_logits.shape == found.end_logits.shape == inputs["input_ids"].shape
    start, end = found.start_logits.argmax(), found.end_logits.argmax()
    assert (start, end) == (expected.start_logits.argmax(), expected.end_logits.argmax())
    close(found.loss, expected.loss)
    first, last = min(start, end), max(start, end)
    pieces = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0, first : last + 1])
    kept = [piece for piece in pieces if piece not in tokenizer.all_special_tokens]
    answer = tokenizer.decode(inputs["input_ids"][0, first : last + 1], skip_special_tokens=True)
    assert answer == tokenizer.convert_tokens_to_string(kept)


def test_training_follows_the_same_losses(opened: Callable[..., Opened]) -> None:
    ours, theirs, tokenizer, _ = opened("ForSequenceClassification", id2label=LABELS)
    inputs = tokenizer(["Good morning", "My dog is cute and small", "No"], padding=True, return_tensors="pt")
    labels = torch.tensor([0, 1, 2])
    losses = []
    for model in (ours.train(), theirs.train()):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        curve = []
        for _ in range(4):
            loss = model(**inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        losses.append(curve)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.01
