import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipelines.finetune.mini_tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(sample_texts) -> Tokenizer:
    languages = [str(n % 3) for n in range(len(sample_texts))]
    return train_tokenizer(sample_texts, languages, vocab_size=3000, alpha=0.5, sample_chars=80_000, seed=0)


def test_special_tokens_are_where_the_family_has_them(tokenizer):
    size = tokenizer.get_vocab_size()
    found = [tokenizer.token_to_id(token) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    assert found == [0, 1, 2, 3, size - 1]
    assert tokenizer.encode("a", "b").tokens.count("</s>") == 3


def test_texts_come_back_after_decoding(tokenizer):
    for text in ("Good morning, everyone.", "Доброе утро"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_it_says_everything_in_one_file(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"), pretty=False)
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert again.encode("ﬁne  text\u200b here").ids == tokenizer.encode("fine text here").ids


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5))
def test_words_are_tokenised_one_by_one_so_fragments_of_a_text_are_real_texts(tokenizer, words):
    words = [" ".join(word.split()) for word in words]
    joined = tokenizer.encode(" ".join(words), add_special_tokens=False).ids
    apart = [index for word in words for index in tokenizer.encode(word, add_special_tokens=False).ids]
    assert joined == apart
