"""The uncompressed bytes of a plain, gzip or zstd file, front to back, within bounds.

A compressed file cannot be entered in the middle: to skip is to decompress and discard. Whoever reads the
shards of a file in order pays for it once in all, because the stream stays where the last read ended; n
readers that share a file's shards decompress it once each.
"""

import os
from types import TracebackType
from typing import Self

import pyarrow as pa

from pipelines.annotate.inputs import InputFile
from xlmr_core.errors import InputError

CHUNK_BYTES = 4 << 20
# gzip cannot exceed 1:1032 and text never comes near; below the floor no ratio can hurt.
MAX_RATIO = 500
RATIO_FLOOR_BYTES = 64 << 20
MAX_EXPANDED_BYTES = 4 << 40


class ForwardStream:
    """Reads a file's uncompressed bytes forward.

    Attributes:
        position: Offset, in uncompressed bytes, of the next byte.

    Raises:
        InputError: "unreadable" when the file cannot be opened or decompressed, "decompression_bomb" when it
            grows beyond any text.
    """

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self.position = 0
        try:
            raw = pa.OSFile(os.fsencode(file.path), "rb")
            self._stream = pa.CompressedInputStream(raw, file.compression) if file.compression else raw
        except OSError as error:
            raise unreadable(file, error) from error

    def read(self, size: int) -> bytes:
        """Returns the next `size` bytes, fewer only at the end of the file."""
        parts, missing = [], size
        while missing:
            try:
                part = self._stream.read(min(missing, CHUNK_BYTES))
            except (OSError, pa.ArrowException) as error:
                raise unreadable(self._file, error) from error
            if not part:
                break
            parts.append(part)
            missing -= len(part)
            self.position += len(part)
            self._check_bounds()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip_to(self, position: int) -> None:
        """Moves forward to `position`; a plain file seeks, a compressed one decompresses and discards."""
        if self._file.compression is None:
            self._stream.seek(position)
            self.position = position
            return
        while self.position < position and self.read(min(CHUNK_BYTES, position - self.position)):
            pass

    def _check_bounds(self) -> None:
        if self._file.compression is None or self.position <= RATIO_FLOOR_BYTES:
            return
        if self.position > min(MAX_RATIO * self._file.size, MAX_EXPANDED_BYTES):
            raise InputError(
                f"{self._file.path} decompresses to over {self.position >> 20} MiB from "
                f"{self._file.size} bytes, at most {MAX_RATIO} times its size is read; "
                "if it is sound, decompress it yourself",
                code="decompression_bomb",
            )

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def unreadable(file: InputFile, error: BaseException) -> InputError:
    """The InputError for a file whose bytes or structure are broken."""
    reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return InputError(
        f"{file.path} cannot be read as {file.format}{f' in {file.compression}' if file.compression else ''} "
        f"({file.size} bytes): {reason}; replace or repair the file, or leave it out",
        code="unreadable",
    )
