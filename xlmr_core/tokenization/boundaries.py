"""Where a text may be cut so that the pieces, tokenised one by one, give the tokens of the whole.

All tokenizers of the family split at blanks before the model sees a word, so a cut before a single blank
between two ordinary characters changes nothing, if the normaliser does not look across it either. A tokenizer
made of any part not known to be that local gets no boundary, and its texts stay whole.
"""

import re
from typing import Any

import tokenizers

from xlmr_core.tokenization.byte_level import component_state

# Never cut beside these. Blanks and controls (runs of blanks may be squeezed); characters that NFKC turns
# into something with a blank at its edge, or into nothing; and those that form one grapheme with what follows
# (the precompiled normaliser looks at whole graphemes: Unicode's Prepend, tags, joiners).
_UNSTEADY = (
    r"\s\x00-\x1f\x7f-\xa0\xa8\xad\xaf\xb4\xb8\u02d8-\u02dd\u037a\u0384\u0385\u0600-\u0605\u061c\u06dd\u070f"
    r"\u0890\u0891\u08e2\u0d4e\u180e\u1fbd-\u1fc1\u1fcd-\u1fcf\u1fdd-\u1fdf\u1fed-\u1fef\u1ffd-\u1fff\u2000-\u200f"
    r"\u2017\u2028-\u202f\u203e\u205f-\u206f\u2581\u3000\u309b\u309c\ufc5e-\ufc63\ufe49-\ufe4c\ufe70-\ufe7f\ufeff"
    r"\uffe3\ufff0-\uffff\U000110bd\U000110cd\U000111c2\U000111c3\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89"
    r"\U00011d46\U00011f02\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Letters that join the blank before them into a grapheme (Unicode's Extend and SpacingMark); marks are no
# `\w`.
_JOINS_BACK = r"\u0e33\u0eb3\uff9e\uff9f"
# What may follow the blank: letters and digits, punctuation, symbols, emoji; no marks, no skin tones.
_STEADY = (
    r"\w!-~\xa1-\xbf\u2010-\u205e\u20a0-\u20bf\u2190-\u2bff\u3001-\u3029\uff01-\uff5e"
    r"\U0001f000-\U0001f3fa\U0001f400-\U0001faff"
)

_LOCAL_NORMALIZERS = ({"type": "Precompiled"}, {"type": "NFC"}, {"type": "NFKC"}, {"type": "Nmt"})
# What converters of SentencePiece models put behind the character map.
_LOCAL_CLEANUPS = (
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
)


def word_boundary(tokenizer: tokenizers.Tokenizer) -> re.Pattern[str] | None:
    """A zero-width pattern that matches where a cut is exact; each blank stays with the word behind it.

    Args:
        tokenizer: Its normaliser, pre-tokenizer, post-processor and added tokens decide.

    Returns:
        None when no cut is known to be exact: then texts must be tokenised whole.
    """
    blanks = _splitting_blanks(tokenizer)
    added = list(tokenizer.get_added_tokens_decoder().values())
    if not blanks or any(re.search(r"\s", token.content) for token in added):
        return None
    # A token that swallows the blanks beside it must keep them.
    before = "".join(f"(?<!{re.escape(token.content)})" for token in added if token.rstrip)
    after = "".join(f"(?!{re.escape(token.content)})" for token in added if token.lstrip)
    return re.compile(f"(?<=[^{_UNSTEADY}]){before}(?=[{blanks}]{after}(?![{_UNSTEADY}{_JOINS_BACK}])[{_STEADY}])")


def _splitting_blanks(tokenizer: tokenizers.Tokenizer) -> str:
    """The blanks that always separate words; empty for a tokenizer with parts this module does not know."""
    normalizer, splitter = component_state(tokenizer.normalizer), component_state(tokenizer.pre_tokenizer)
    steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
    for step in steps:
        step.pop("precompiled_charsmap", None)
    if not all(step in _LOCAL_NORMALIZERS or step in _LOCAL_CLEANUPS for step in steps):
        return ""
    match [part["type"] for part in splitter.get("pretokenizers", [splitter])] if splitter else []:
        case ["WhitespaceSplit", "Metaspace"]:
            return " \n" if _is_metaspace(splitter["pretokenizers"][1], prepend=("always",)) else ""
        case ["Metaspace"]:
            return " " if _is_metaspace(splitter, prepend=("always", "first", "never")) else ""
        case ["ByteLevel"]:
            post = component_state(tokenizer.post_processor)
            regular = splitter["use_regex"] and not splitter["add_prefix_space"] and not steps
            # A post-processor that assumes an added blank would not trim the blank at the start of a piece.
            return " \n" if regular and not post.get("add_prefix_space", False) else ""
    return ""


def _is_metaspace(part: dict[str, Any], *, prepend: tuple[str, ...]) -> bool:
    return part["replacement"] == "▁" and part["split"] is True and part["prepend_scheme"] in prepend
