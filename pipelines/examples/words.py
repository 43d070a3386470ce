"""Words and the text they stand in: joined, or found again in a text that is given."""

from collections.abc import Sequence

from pipelines.examples.example import Span


def join_words(words: Sequence[str], gaps: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """A text of words, and where each stands in it, in code points.

    Args:
        words: In order.
        gaps: What stands behind each word; behind the last it is dropped.
    """
    spans, parts, at = [], [], 0
    for word, gap in zip(words, gaps, strict=True):
        spans.append((at, at + len(word)))
        parts += [word, gap]
        at += len(word) + len(gap)
    return "".join(parts[:-1]), tuple(spans)


def find_words(words: Sequence[str], text: str) -> tuple[Span, ...] | None:
    """Where words stand in their text; None unless they follow each other with nothing but white space between."""
    spans: list[Span] = []
    end = 0
    for word in words:
        start = text.find(word, end)
        if start < 0 or (start > end and text[end:start].strip()):
            return None
        end = start + len(word)
        spans.append((start, end))
    return None if text[end:].strip() else tuple(spans)
