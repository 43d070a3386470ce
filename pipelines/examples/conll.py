"""Sentences of CoNLL-like files (CoNLL-2002/2003, BIO, IOB2) and of CoNLL-U, with their words' places in the text."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from pipelines.annotate.lines import Problem
from pipelines.examples.example import Row, Span
from pipelines.examples.files import ReadSettings
from pipelines.examples.words import find_words, join_words

# Lines of one sentence; some corpora have no sentence bounds at all.
MAX_SENTENCE_LINES = 100_000
_COMMENT = re.compile(r"#\s*(newdoc id|newdoc|newpar|sent_id|text|id)\s*=\s*(.*)")
_TAG = re.compile(r"O|[A-Z]+|[BIESLUM][-_].+")
_NUMBER = re.compile(r"\d+")
_RANGE = re.compile(r"(\d+)-(\d+)")
_EMPTY_NODE = re.compile(r"\d+\.\d+")
_FIELDS = {"lemma": 2, "upos": 3, "xpos": 4, "feats": 5, "deprel": 7}

Line = tuple[int, str | Problem]


def _sentences(lines: Iterable[Line]) -> Iterator[tuple[list[Line], bool]]:
    """Yields the lines between blank ones, and whether there were too many."""
    sentence: list[Line] = []
    too_many = False
    for number, line in chain(lines, [(0, "")]):
        if isinstance(line, Problem) or line.strip():
            if len(sentence) < MAX_SENTENCE_LINES:
                sentence.append((number, line))
            else:
                too_many = True
        elif sentence:
            yield sentence, too_many
            sentence, too_many = [], False


def _broken(sentence: list[Line], too_many: bool) -> Row | None:
    """The row of a sentence that cannot be read at all."""
    for number, line in sentence:
        if isinstance(line, Problem):
            return Row(number, {}, line)
    if too_many:
        problem = Problem("sentence_too_long", f"a sentence has over {MAX_SENTENCE_LINES} lines; put blank lines in")
        return Row(sentence[0][0], {}, problem)
    return None


def conll_rows(lines: Iterable[Line], settings: ReadSettings) -> Iterator[Row]:
    """Sentences of one token a line; a blank line ends a sentence.

    Columns stand apart by tabs or, in lines without one, by blanks. Lines that begin with "#" are comments unless they
    are a token, "-DOCSTART-" lines are passed over. Where a comment `# text =` holds the words with nothing but white
    space between, it is the text; else the words are joined by `settings.word_gap`.
    """
    for sentence, too_many in _sentences(lines):
        broken = _broken(sentence, too_many)
        if broken is not None:
            yield broken
            continue
        comments: dict[str, str] = {}
        tokens: list[tuple[int, list[str]]] = []
        split = [(number, _fields(str(line))) for number, line in sentence]
        width = len(split[-1][1])
        counted = _NUMBER.fullmatch(split[-1][1][0]) is not None and width > 2
        for (number, fields), (_, line) in zip(split, sentence, strict=True):
            if fields[0] == "-DOCSTART-":
                continue
            if fields[0].startswith("#") and (counted or not _is_token(fields, width, str(line))):
                _remember(comments, str(line))
            else:
                tokens.append((number, fields))
        if tokens:
            yield _conll_row(tokens, comments, settings, counted)


def _fields(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else [field for field in line.split(" ") if field]


def _is_token(fields: list[str], width: int, line: str) -> bool:
    """Whether a line that begins with "#" is a token, such as a hashtag, and no comment."""
    if len(fields) != width or width < 2:
        return False
    return "\t" in line or _TAG.fullmatch(fields[-1]) is not None


def _remember(comments: dict[str, str], line: str) -> None:
    match = _COMMENT.match(line)
    if match:
        comments.setdefault(match[1], match[2])


def _conll_row(
    tokens: list[tuple[int, list[str]]], comments: dict[str, str], settings: ReadSettings, counted: bool
) -> Row:
    at = settings.token_index if settings.token_index is not None else int(counted)
    tag_at = settings.tag_index if settings.tag_index is not None else 2 if counted else -1
    width = max(at if at >= 0 else -at - 1, tag_at if tag_at >= 0 else -tag_at - 1) + 1
    words, tags = [], []
    for number, fields in tokens:
        # Ranges and empty nodes of files cut out of CoNLL-U.
        if counted and not _NUMBER.fullmatch(fields[0]):
            if _RANGE.fullmatch(fields[0]) or _EMPTY_NODE.fullmatch(fields[0]):
                continue
            return Row(number, {}, Problem("bad_conll", "a line whose first column is no number among such that are"))
        if len(fields) < max(width, 2):
            rule = f"token and tag are wanted in columns {at} and {tag_at}"
            return Row(number, {}, Problem("bad_conll", f"a line has {len(fields)} columns, {rule}"))
        words.append(fields[at])
        tags.append(fields[tag_at])
    if not words:
        return Row(tokens[0][0], {}, Problem("bad_conll", "a sentence has no words"))
    text, spans, notice = _placed(words, [settings.word_gap] * len(words), comments.get("text"))
    values: dict[str, object] = {"words": words, "tags": tags, "text": text, "id": _id(comments)}
    return Row(tokens[0][0], values, spans=spans, notice=notice)


def _placed(words: list[str], gaps: list[str], given: str | None) -> tuple[str, tuple[Span, ...], str | None]:
    """Text and places of words: those of the given text where they stand in it, else joined; and what is odd."""
    spans = find_words(words, given) if given is not None else None
    if given is not None and spans is not None:
        return given, spans, None
    return *join_words(words, gaps), None if given is None else "words_not_in_text"


def _id(comments: dict[str, str]) -> str | None:
    return comments.get("sent_id") or comments.get("id") or None


def conllu_rows(lines: Iterable[Line]) -> Iterator[Row]:
    """Sentences of CoNLL-U, as the evaluation script of the CoNLL 2018 shared task reads them.

    Words are those of the syntactic level; empty nodes are none. The text is that of the comment `# text =` where it
    holds the surface tokens with nothing but white space between, else these tokens with a blank behind each that has
    no `SpaceAfter=No`; the words of a multi-word token all have its span.
    """
    for sentence, too_many in _sentences(lines):
        broken = _broken(sentence, too_many)
        if broken is not None:
            yield broken
            continue
        comments: dict[str, str] = {}
        tokens: list[tuple[int, list[str]]] = []
        for number, line in sentence:
            if str(line).startswith("#"):
                _remember(comments, str(line))
            else:
                tokens.append((number, str(line).split("\t")))
        if tokens:
            yield _conllu_row(tokens, comments)


def _conllu_row(tokens: list[tuple[int, list[str]]], comments: dict[str, str]) -> Row:
    surface: list[str] = []
    gaps: list[str] = []
    words: list[list[str]] = []
    token_of_word: list[int] = []
    inside = 0
    for number, fields in tokens:
        if len(fields) != 10:
            return Row(number, {}, Problem("bad_conll", f"a line has {len(fields)} columns, CoNLL-U has 10"))
        if _EMPTY_NODE.fullmatch(fields[0]):
            continue
        several = _RANGE.fullmatch(fields[0])
        if several is None and fields[0] != str(len(words) + 1):
            return Row(number, {}, Problem("bad_conll", f"a word has another number than {len(words) + 1}"))
        if several is not None or len(words) >= inside:
            surface.append(fields[1])
            gaps.append("" if "SpaceAfter=No" in fields[9].split("|") else " ")
        if several is not None:
            if int(several[1]) != len(words) + 1 or not int(several[1]) <= int(several[2]) or len(words) < inside:
                return Row(number, {}, Problem("bad_conll", "a multi-word token has other numbers than its words"))
            inside = int(several[2])
            continue
        words.append(fields)
        token_of_word.append(len(surface) - 1)
    if len(words) < max(inside, 1):
        return Row(tokens[0][0], {}, Problem("bad_conll", "a sentence has fewer words than it says"))
    text, spans_of_token, notice = _placed(surface, gaps, comments.get("text"))
    spans = tuple(spans_of_token[token] for token in token_of_word)
    columns = {name: [None if word[at] == "_" else word[at] for word in words] for name, at in _FIELDS.items()}
    values: dict[str, object] = {"words": [word[1] for word in words], "text": text, "id": _id(comments), **columns}
    return Row(tokens[0][0], values, spans=spans, notice=notice)
