"""Where records end in text, JSON lines, CSV and TSV: found with numpy, in chunks, whatever the file's size.

A record ends at a line feed; in CSV and TSV also at a lone carriage return, and only outside quotes, as
Python's `csv` understands them: a quote opens a field where a field begins, elsewhere it is a character.
In JSON lines, CSV and TSV a line without any character is no record; in text it is an empty one.
"""

import numpy as np
import numpy.typing as npt

BOM = b"\xef\xbb\xbf"
DELIMITERS = {"csv": ",", "tsv": "\t"}
_NEWLINE, _RETURN, _QUOTE = ord("\n"), ord("\r"), ord('"')

Positions = npt.NDArray[np.int64]


class RecordScanner:
    """Finds the ends of records in consecutive chunks.

    Attributes:
        inside_quotes: Whether the bytes so far end inside a quoted field.
    """

    def __init__(self, format: str, *, start: int = 0) -> None:
        """Starts at absolute offset `start`, which must be where a record begins."""
        self._quoted = format in DELIMITERS
        self._delimiter = ord(DELIMITERS.get(format, "\n"))
        self._blank_lines_count = format == "text"
        self._offset = start
        self._line_start = start
        self._last_byte = _NEWLINE
        self._closed_at = -1
        self.inside_quotes = False

    def feed(self, chunk: bytes) -> Positions:
        """Returns the absolute offsets just behind each record that ends in `chunk`."""
        data = np.frombuffer(chunk, dtype=np.uint8)
        if not len(data):
            return np.empty(0, dtype=np.int64)
        if self._quoted:
            newlines = self._outside_quotes(data, self._csv_newlines(data))
        else:
            newlines = np.flatnonzero(data == _NEWLINE)
        ends = newlines + (self._offset + 1)
        if len(ends):
            records = ends if self._blank_lines_count else ends[self._not_blank(data, newlines, ends)]
            self._line_start = int(ends[-1])
        else:
            records = ends
        self._offset += len(data)
        self._last_byte = int(data[-1])
        return records

    def finish(self) -> Positions:
        """Returns the end of the last record where no line feed closed it: one offset or none."""
        length = self._offset - self._line_start
        blank = length == 0 or (length == 1 and self._last_byte == _RETURN and not self._blank_lines_count)
        return np.array([] if blank else [self._offset], dtype=np.int64)

    def _not_blank(self, data: npt.NDArray[np.uint8], newlines: Positions, ends: Positions) -> npt.NDArray[np.bool_]:
        lengths = np.diff(ends, prepend=self._line_start)
        before = data[np.maximum(newlines, 1) - 1]
        if newlines[0] < 1:
            before[0] = self._last_byte if newlines[0] == 0 else 0
        keep: npt.NDArray[np.bool_] = (lengths > 2) | ((lengths == 2) & (before != _RETURN))
        return keep

    def _csv_newlines(self, data: npt.NDArray[np.uint8]) -> Positions:
        """Line feeds, and carriage returns that no line feed follows; -1 is the last byte of the chunk before."""
        lone = np.flatnonzero(data == _RETURN)
        lone = lone[data[np.minimum(lone + 1, len(data) - 1)] != _NEWLINE]
        if len(lone) and lone[-1] == len(data) - 1:
            # Whether a line feed follows, the next chunk will tell.
            lone = lone[:-1]
        newlines = np.flatnonzero(data == _NEWLINE)
        if len(lone):
            newlines = np.union1d(newlines, lone)
        if self._last_byte == _RETURN and data[0] != _NEWLINE:
            newlines = np.concatenate([[-1], newlines])
        return newlines

    def _outside_quotes(self, data: npt.NDArray[np.uint8], newlines: Positions) -> Positions:
        quotes = np.flatnonzero(data == _QUOTE)
        inside = self.inside_quotes
        if len(quotes):
            opening = quotes[1::2] if inside else quotes[0::2]
            before = data[opening - 1]
            if len(opening) and opening[0] == 0:
                continues = self._last_byte == _QUOTE and self._closed_at == self._offset - 1
                before[0] = _QUOTE if continues else (self._last_byte if self._last_byte != _QUOTE else 0)
            if not np.isin(before, (self._delimiter, _NEWLINE, _RETURN, _QUOTE)).all():
                quotes = self._without_stray(data, quotes)
            self.inside_quotes = bool((inside + len(quotes)) & 1)
            if len(quotes) and not self.inside_quotes:
                self._closed_at = self._offset + int(quotes[-1])
        parity = np.searchsorted(quotes, newlines) + inside
        outside: Positions = newlines[(parity & 1) == 0]
        return outside

    def _without_stray(self, data: npt.NDArray[np.uint8], quotes: Positions) -> Positions:
        """Drops the quotes that neither open nor close a field; one by one, since each decides the next."""
        inside, closed_at = self.inside_quotes, self._closed_at - self._offset
        real = []
        for quote in quotes.tolist():
            before = int(data[quote - 1]) if quote else self._last_byte
            if inside:
                inside, closed_at = False, quote
            elif before in (self._delimiter, _NEWLINE, _RETURN) or closed_at == quote - 1:
                inside = True
            else:
                continue
            real.append(quote)
        return np.array(real, dtype=np.int64)


def split_records(format: str, data: bytes) -> tuple[list[bytes], bool]:
    """Cuts bytes that begin where a record begins.

    Returns:
        The records without the line feeds behind them, and whether the last one ends inside quotes.
    """
    if format in DELIMITERS:
        scanner = RecordScanner(format)
        ends = np.concatenate([scanner.feed(data), scanner.finish()]).tolist()
        starts = [0, *ends[:-1]]
        # Blank lines lie in front of a record; what csv sees must start at the record itself.
        records = [data[start:end].strip(b"\r\n") for start, end in zip(starts, ends, strict=True)]
        return records, scanner.inside_quotes
    records = data.split(b"\n")
    if not records[-1]:
        records.pop()
    return (records if format == "text" else [line for line in records if line not in (b"", b"\r")]), False
