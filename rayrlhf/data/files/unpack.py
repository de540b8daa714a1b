"""Bytes of a file as the readers take them: unpacked, and UTF-16 and UTF-32 as UTF-8."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rayrlhf.data.files.base import WIDE, Decoding

PACKED_NAMES = (".gz", ".zst", ".bz2", ".xz")
UNPACK_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks of wide encodings; the first one begins with the second."""
UNMARKED = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
"""What a named encoding is in a file without the mark that would tell its byte order."""
PIECE_BYTES = 1 << 16
NO_CHARACTER = "\udcff"
"""Stands for bytes that are no text: no UTF-8 either, so that their row is told as such."""


def _zstd(file: IO[bytes]) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"), PIECE_BYTES)


PACKED: dict[re.Pattern[bytes], tuple[str, Callable[[IO[bytes]], Any]]] = {
    re.compile(rb"\x1f\x8b"): ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    re.compile(rb"\(\xb5/\xfd|[P-_]\*M\x18"): ("zstd", _zstd),  # or a frame to skip, as pzstd writes first
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"): ("bzip2", bz2.BZ2File),  # a block, or the end of an empty file
    re.compile(rb"\xfd7zXZ\0"): ("xz", lzma.LZMAFile),
}


@dataclass(frozen=True)
class Opened:
    """A file, from its first character."""

    raw: IO[bytes]
    """The file itself, to be closed."""
    text: IO[bytes]
    """What is to be read, without a byte order mark."""
    decoding: Decoding


def open_text(path: Path, decoding: Decoding) -> Opened:
    """Raises one of UNPACK_ERRORS, as reading does, if the file cannot be read or unpacked."""
    with path.open("rb") as file:
        start = _unpacked(file).read(4)
    raw = path.open("rb")
    text = _unpacked(raw)
    named = UNMARKED.get(decoding.encoding, decoding.encoding) if decoding.encoding in WIDE else None
    wide = next((encoding for mark, encoding in MARKS.items() if start.startswith(mark)), named)
    if wide is not None:
        return Opened(raw, io.BufferedReader(_AsUtf8(text, wide)), Decoding(invalid=decoding.invalid))
    if start.startswith(codecs.BOM_UTF8):
        text.read(len(codecs.BOM_UTF8))
    return Opened(raw, text, decoding)


def packing(path: Path) -> str:
    """The name of what a file was packed with, or an empty text. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return packing_of(file.read(16))


def packing_of(head: bytes) -> str:
    """The same of what begins with `head`."""
    return next((name for mark, (name, _) in PACKED.items() if mark.match(head)), "")


def _unpacked(raw: IO[bytes]) -> Any:
    head = raw.read(16)
    raw.seek(0)
    return next((unpack(raw) for mark, (_, unpack) in PACKED.items() if mark.match(head)), raw)


class _AsUtf8(io.RawIOBase):
    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("rayrlhf.no_character")
        self._ready, self._ended = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            data = self._file.read(PIECE_BYTES)
            self._ended = not data
            self._ready = self._decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _no_character(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError), "only bytes are decoded"
    return NO_CHARACTER, error.end


codecs.register_error("rayrlhf.no_character", _no_character)
