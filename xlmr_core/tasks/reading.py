"""What a task reads of a record: which texts, laid out how. The graph tokenises and cuts windows by it."""

from dataclasses import dataclass
from typing import Literal

# "text"      the text alone
# "pair"      text, second text; the longer one is cut into windows
# "beside"    text, second text; only the text is cut
# "question"  second text, text; only the text is cut
# "apart"     the text and each second text, each alone
Layout = Literal["text", "pair", "beside", "question", "apart"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a task asks of every record.

    Attributes:
        layout: Which texts go through the encoder together.
        prompt: Text put before every text.
        offsets: Whether the task needs to know where tokens stand in the text.
        fixed: Second texts that are the same for every record; empty when the record brings its own.
        hides_each_token: Whether every token is hidden once, in a window of its own.
        needs_mask: Whether a record without a mask token is refused.
    """

    layout: Layout = "text"
    prompt: str = ""
    offsets: bool = False
    fixed: tuple[str, ...] = ()
    hides_each_token: bool = False
    needs_mask: bool = False

    @property
    def reads_record_pairs(self) -> bool:
        """Whether the record must bring second texts."""
        return self.layout != "text" and not self.fixed
