"""What a task reads of a record: which texts, laid out how. The graph tokenises and cuts windows by it."""

from dataclasses import dataclass
from typing import Literal

from xlmr_core.tokenization.units import Unit

# "text"      the text alone
# "pair"      text, second text; the longer one is cut into windows
# "beside"    text, second text; only the text is cut
# "question"  second text, text; only the text is cut
# "apart"     the text and each second text, each alone
Layout = Literal["text", "pair", "beside", "question", "apart"]
# "blanks"     a word starts behind white space, in scripts without it at a Unicode word boundary, and at an unknown
#              token (`word_starts`): what aggregation of entities goes by
# "tokenizer"  a word is what the tokenizer cuts before it looks for tokens; as "blanks" where its tokens do not tell
# "none"       the task does not ask
Words = Literal["blanks", "tokenizer", "none"]
# Hidden states of which tokens the head reads: all, `<s>` alone, or the one token that its window hides.
Rows = Literal["all", "first", "hidden"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a task asks of every record.

    Attributes:
        layout: Which texts go through the encoder together.
        prompt: Text put before every text.
        second_prompt: Text put before every second text that stands apart.
        offsets: Whether the task needs to know where tokens stand in the text.
        fixed: Second texts that are the same for every record; empty when the record brings its own.
        hides_each_token: Whether every token is hidden once, in a window of its own.
        needs_mask: Whether a record without a mask token is refused.
        words: Where words start, for tasks that need offsets and words.
        unit: What offsets count.
        texts: Whether the task needs the texts themselves to decode.
        longest_second: Most tokens of a second text; None for any number.
        fewest_second: A record with fewer second texts is refused.
        most_second: A record with more is refused; None for any number.
        language: Whether decoding asks for the records' languages.
        rows: Which tokens the head reads; the encoder's last layer computes no others when no annotation wants them.
    """

    layout: Layout = "text"
    prompt: str = ""
    second_prompt: str = ""
    offsets: bool = False
    fixed: tuple[str, ...] = ()
    hides_each_token: bool = False
    needs_mask: bool = False
    words: Words = "none"
    unit: Unit = "codepoint"
    texts: bool = False
    longest_second: int | None = None
    fewest_second: int = 1
    most_second: int | None = None
    language: bool = False
    rows: Rows = "all"

    @property
    def reads_record_pairs(self) -> bool:
        """Whether the record must bring second texts."""
        return self.layout != "text" and not self.fixed
