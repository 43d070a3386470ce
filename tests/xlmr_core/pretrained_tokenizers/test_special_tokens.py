"""The frame, the roles, added tokens, and decoding."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlmr_core.errors import ArgumentError, InputError
from xlmr_core.pretrained_tokenizers import RobertaTokenizer, RobertaTokenizerFast, XLMRobertaTokenizerFast

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestFrame:
    def test_ids_are_framed_as_a_call_frames_texts(self, pair):
        ours = pair.ours
        first, second = (ours.encode(text, add_special_tokens=False) for text in ("hello the", "world"))
        assert ours.build_inputs_with_special_tokens(first) == ours.encode("hello the")
        assert ours.build_inputs_with_special_tokens(first, second) == ours.encode("hello the", "world")
        assert ours.build_inputs_with_special_tokens([], []) == [0, 2, 2, 2]

    def test_masks_and_types_are_those_of_a_call(self, pair):
        ours = pair.ours
        ids = [ours.encode(text, add_special_tokens=False) for text in ("hello the", "world")]
        for texts, given_ids in ((["hello the"], ids[:1]), (["hello the", "world"], ids)):
            called = ours(*texts, return_special_tokens_mask=True, return_token_type_ids=True)
            assert ours.get_special_tokens_mask(*given_ids) == called["special_tokens_mask"]
            framed = ours.get_special_tokens_mask(called["input_ids"], already_has_special_tokens=True)
            assert framed == pair.theirs.get_special_tokens_mask(called["input_ids"], already_has_special_tokens=True)
            assert framed == called["special_tokens_mask"]
            assert ours.create_token_type_ids_from_sequences(*given_ids) == called["token_type_ids"]
        assert set(called["token_type_ids"]) == {0}
        assert [ours.num_special_tokens_to_add(two) for two in (False, True)] == [2, 4]
        assert (ours.max_len_single_sentence, ours.max_len_sentences_pair) == (62, 60)

    def test_a_second_text_beside_a_framed_sequence_is_refused(self, pair):
        with pytest.raises(ArgumentError, match="token_ids_1"):
            pair.ours.get_special_tokens_mask([0, 2], [0, 2], already_has_special_tokens=True)

    def test_texts_are_framed_by_cls_and_sep(self, byte_files, toy):
        """As the documents say; transformers 5 frames XLM-R's by bos and eos."""
        for tokenizer in (
            RobertaTokenizerFast(str(byte_files / "vocab.json"), str(byte_files / "merges.txt"), cls_token="[CLS]"),
            XLMRobertaTokenizerFast(str(toy), cls_token="[CLS]"),
        ):
            assert tokenizer.cls_token_id == len(tokenizer) - 1
            assert tokenizer.encode("")[0] == tokenizer.cls_token_id
            assert tokenizer.bos_token_id == 0


class TestRoles:
    def test_they_are_those_of_transformers(self, pair):
        ours, theirs = pair
        for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
            assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
            assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
        assert ours.special_tokens_map == theirs.special_tokens_map
        assert ours.all_special_tokens == theirs.all_special_tokens
        assert ours.all_special_ids == theirs.all_special_ids
        assert (ours.vocab_size, len(ours)) == (theirs.vocab_size, len(theirs))
        assert ours.get_vocab() == theirs.get_vocab()
        assert ours.get_added_vocab() == theirs.get_added_vocab()

    def test_they_can_be_set_and_unset(self, byte_files):
        tokenizer = RobertaTokenizer.from_pretrained(byte_files)
        tokenizer.mask_token = "hello"
        assert tokenizer.mask_token_id == tokenizer.convert_tokens_to_ids("hello")
        tokenizer.mask_token_id = tokenizer.pad_token_id
        assert tokenizer.mask_token == "<pad>"
        tokenizer.mask_token = None
        assert tokenizer.mask_token_id is None
        assert "mask_token" not in tokenizer.special_tokens_map
        with pytest.raises(ArgumentError, match="mask_token 5"):
            tokenizer.mask_token = 5
        with pytest.raises(ArgumentError, match="mask_token_id 99999"):
            tokenizer.mask_token_id = 99999

    def test_tokens_can_be_added(self, byte_files):
        tokenizer = RobertaTokenizer.from_pretrained(byte_files)
        size = len(tokenizer)
        assert tokenizer.add_tokens("<new>") == 1
        assert tokenizer.add_special_tokens({"additional_special_tokens": ["<a>", "<b>"], "mask_token": "[M]"}) == 3
        assert len(tokenizer) == size + 4
        assert tokenizer.vocab_size == size
        assert tokenizer.additional_special_tokens == ["<a>", "<b>"]
        assert tokenizer.additional_special_tokens_ids == [size + 1, size + 2]
        assert tokenizer.mask_token_id == size + 3
        ids = tokenizer.encode("a<new><a> [M]", add_special_tokens=False)
        assert ids[-3:] == [size, size + 1, size + 3]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "a<new>"
        tokenizer.add_special_tokens({"extra_special_tokens": ["<c>"]}, replace_additional_special_tokens=False)
        assert tokenizer.additional_special_tokens == ["<a>", "<b>", "<c>"]
        # Calls with settings of their own know them too.
        assert tokenizer.encode("a<new>", truncation=True, max_length=9)[2] == size
        with pytest.raises(ArgumentError, match="special token nose_token; known are bos_token"):
            tokenizer.add_special_tokens({"nose_token": "x"})

    def test_unknown_tokens_get_the_unknown_id(self, pair):
        assert pair.ours.convert_tokens_to_ids(["hello?!", "<s>"]) == [3, 0]
        assert pair.ours.convert_ids_to_tokens(10**6) is None


class TestDecode:
    @quick
    @given(ids=st.lists(st.integers(0, 269), max_size=20), skip=st.booleans())
    def test_any_ids(self, pair, ids, skip):
        ours, theirs = pair
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)

    @quick
    @given(ids=st.lists(st.integers(0, 269), max_size=20))
    def test_errors_are_those_of_bytes_decode(self, small_bytes, byte_files, ids):
        """ "replace" through our own bytes is what the library makes of them."""
        tokenizer = RobertaTokenizer.from_pretrained(byte_files, errors="strict")
        valid = "\ufffd" not in small_bytes.ours.decode(ids)
        if valid:
            assert tokenizer.decode(ids) == small_bytes.ours.decode(ids)
        else:
            with pytest.raises(InputError, match="no valid UTF-8"):
                tokenizer.decode(ids)
        tokenizer.errors = "backslashreplace"
        escaped = tokenizer.decode(ids)
        tokenizer.errors = "ignore"
        ignored = tokenizer.decode(ids)
        assert ignored == small_bytes.ours.decode(ids).replace("\ufffd", "")
        assert valid == (escaped == ignored)

    def test_arrays_tensors_batches_and_single_ids(self, pair):
        ours, theirs = pair
        ids = ours(["hello the", "world"], padding=True)["input_ids"]
        for make in (list, tuple, torch.tensor):
            assert ours.decode(make(ids)) == theirs.decode(make(ids))
            assert ours.batch_decode(make(ids), skip_special_tokens=True) == theirs.batch_decode(
                make(ids), skip_special_tokens=True
            )
        assert ours.decode(torch.tensor(7)) == theirs.decode(7)
        assert ours.decode(ours("hello")) == theirs.decode(ours("hello")["input_ids"])
        assert ours.decode([]) == ""

    def test_blanks_before_punctuation(self, small):
        ids = small.ours.encode("hello , the world . do n't", add_special_tokens=False)
        got = small.ours.decode(ids, clean_up_tokenization_spaces=True)
        assert got == small.theirs.decode(ids, clean_up_tokenization_spaces=True)
        assert got.startswith("hello, the world.")

    @pytest.mark.parametrize(
        ("ids", "said"), [([5, -100], "id -100 at 1"), ([2.5], "float"), (["a"], "str"), (None, "None")]
    )
    def test_what_is_no_id_is_named(self, pair, ids, said):
        with pytest.raises(InputError, match=said):
            pair.ours.decode(ids)
