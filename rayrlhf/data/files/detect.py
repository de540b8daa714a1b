"""Detects a file's container from its first bytes; the name only decides what plain text means."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from rayrlhf.data.files.base import Chunk, Decoding
from rayrlhf.data.files.json_array import json_array_chunks
from rayrlhf.data.files.json_lines import is_cut, json_lines_chunks
from rayrlhf.data.files.plain_text import CHAT_START, chat_chunks, line_chunks
from rayrlhf.data.files.table import NO_TABLE, Table, csv_chunks, parquet_chunks
from rayrlhf.data.files.unpack import PACKED_NAMES, UNPACK_ERRORS, open_text, packing, packing_of
from rayrlhf.data.ingest.account import DataError

HEAD_BYTES = 1 << 16
SPACE = b" \t\r\n"
JSON_LINES_NAMES = (".jsonl", ".ndjson", ".json")
TABLE_NAMES = {".csv": ",\t;", ".tsv": "\t,;"}
"""Delimiters to look for in the header, most likely first."""
DATA_NAMES = (*JSON_LINES_NAMES, *TABLE_NAMES, ".parquet", ".txt")
ARRAY_START = re.compile(rb"\[\s*(\{|\])")
OBJECT_START = re.compile(rb"\{\s*(\"|\})")
QUOTED = re.compile(r'"[^"]*"')
PARQUET_START = b"PAR1"
UNREADABLE = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: unpack it, or save it as CSV",
    b"version https://git-lfs": "a pointer of Git LFS, not the data: fetch the data with `git lfs pull`",
    b"<!doctype html": "a web page, not the data: it may be a server's error message; download the file again",
    b"<html": "a web page, not the data: it may be a server's error message; download the file again",
}
MAX_ZEROS = 0.01
"""Share of zero bytes that text in UTF-8 never has, but UTF-16 has, by its spaces and line breaks."""
PRETTY = (
    "its JSON objects go on over several lines (pretty-printed): write one object per line, as `jq -c .` does, "
    "or put them into one array"
)


def data_suffix(path: Path) -> str:
    """`.csv` of `ROWS.CSV.GZ`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_NAMES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_chunks(
    path: Path, decoding: Decoding, table: Table = NO_TABLE, content: Path | None = None
) -> Iterator[Chunk]:
    """The rows of one file.

    Args:
        content: where its bytes lie, if not at `path`.

    Raises DataError if it is missing, empty, of no known kind, or cannot be read to its end.
    """
    content = content or path
    packed = ""
    try:
        check_is_file(path, content)
        packed = packing(content)
        opened = open_text(content, decoding)
        with opened.raw:
            head = _head(opened.text)
        if head.startswith(PARQUET_START):
            if packed:
                raise DataError(f"{path}: a Parquet file inside {packed}: unpack it")
            yield from parquet_chunks(content, path, decoding)
            return
        if packed and (inside := packing_of(head)):
            raise DataError(f"{path}: {inside} inside {packed}: unpack it once")
        read = _reader(head, path, table)
        opened = open_text(content, decoding)
        with opened.raw as raw:
            position = 0
            for chunk in read(opened.text, path, opened.decoding):
                if opened.text is not raw:
                    chunk, position = replace(chunk, num_bytes=raw.tell() - position), raw.tell()
                yield chunk
    except UNPACK_ERRORS as error:
        if packed:
            raise DataError(f"{path}: cannot unpack it, it is damaged or not complete: {packed}: {error}") from None
        raise DataError(f"{path}: cannot read it: {getattr(error, 'strerror', None) or error}") from None


def check_is_file(path: Path, content: Path) -> None:
    """Raises DataError if what lies at `content`, named `path`, cannot be read again and again, or not at all."""
    try:
        mode = content.stat().st_mode
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot read it: {error.strerror}"
        raise DataError(f"{path}: {reason}") from None
    except ValueError:  # a zero, which no file's name holds
        raise DataError(f"{path}: no such file") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: cannot read it: Is a directory")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: a pipe or a device can be read only once: save what it gives to a file")


def _head(file: IO[bytes]) -> bytes:
    """The first bytes from the first visible character on; empty if there is none."""
    text = b""
    while not text and (more := file.read(HEAD_BYTES)):
        text = more.lstrip(SPACE)
    return text


def _reader(head: bytes, path: Path, table: Table) -> Callable[[IO[bytes], Path, Decoding], Iterator[Chunk]]:
    """What reads a file that begins with `head`. Raises DataError if nothing can."""
    for mark, what in UNREADABLE.items():
        if head.lower().startswith(mark.lower()):
            raise DataError(f"{path}: {what}")
    if not head:
        raise DataError(f"{path}: the file is empty")
    if b"\0" in head[:2] or head.count(b"\0") > max(2, MAX_ZEROS * len(head)):
        raise DataError(
            f"{path}: not text, or UTF-16 without a byte order mark: name its encoding (decoding.encoding=utf-16-le or "
            "utf-16-be), or convert it to UTF-8"
        )
    if table.is_set:
        delimiter = table.delimiter or _delimiter(head, ",\t;") or ","
        return partial(csv_chunks, delimiter=delimiter, header=table.header)
    suffix = data_suffix(path)
    could_be_prose = suffix == ".txt" or suffix in TABLE_NAMES
    if ARRAY_START.match(head) or (head.startswith(b"[") and not could_be_prose):
        return json_array_chunks
    if OBJECT_START.match(head) or (head.startswith(b"{") and not could_be_prose):
        if _is_pretty(head):
            raise DataError(f"{path}: {PRETTY}")
        return json_lines_chunks
    if head.startswith(CHAT_START.encode()):
        return chat_chunks
    if suffix == ".txt":
        return line_chunks
    if suffix in JSON_LINES_NAMES:
        return json_lines_chunks
    delimiter = _delimiter(head, TABLE_NAMES.get(suffix, "\t,"))
    if delimiter or suffix in TABLE_NAMES:
        return partial(csv_chunks, delimiter=delimiter or ",")
    raise DataError(
        f"{path}: not JSON lines, a JSON array, CSV, Parquet or a plain-text chat; "
        "name it .txt if each line is a prompt"
    )


def _delimiter(head: bytes, candidates: str) -> str:
    """The one of `candidates` that the header has most of, or an empty text if it has none."""
    header = QUOTED.sub("", head.partition(b"\n")[0].decode(errors="replace"))
    best = max(candidates, key=header.count)
    return best if best in header else ""


def _is_pretty(head: bytes) -> bool:
    """Whether each of the first JSON values goes on over several lines, as written for people."""
    text = head.decode(errors="replace").rstrip()  # a row that was cut may end with a line break
    decoder, at, values = json.JSONDecoder(), 0, 0
    while at < len(text):
        try:
            _, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            return "\n" in text[at : error.pos] and (values > 0 or is_cut(error, text))
        except (ValueError, RecursionError):
            return False
        if "\n" not in text[at:end]:
            return False
        values += 1
        at = len(text) - len(text[end:].lstrip())
    return True
