"""Detects a file's container from its first bytes; the name only decides what plain text means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rayrlhf.data.files.base import Chunk, Decoding
from rayrlhf.data.files.json_array import json_array_chunks
from rayrlhf.data.files.json_lines import json_lines_chunks
from rayrlhf.data.files.plain_text import CHAT_START, chat_chunks, line_chunks
from rayrlhf.data.files.table import csv_chunks, parquet_chunks
from rayrlhf.data.ingest.account import DataError

HEAD_BYTES = 1 << 16
SPACE = b" \t\r\n"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
JSON_LINES_NAMES = (".jsonl", ".ndjson", ".json")
TABLE_NAMES = {".csv": b",\t", ".tsv": b"\t,"}
"""Delimiters to look for in the header, most likely first."""
ARRAY_START = re.compile(rb"\[\s*(\{|\])")
OBJECT_START = re.compile(rb"\{\s*(\"|\})")
UNREADABLE = {
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"BZh91AY&SY": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: unpack it, or save it as CSV",
    b"(\xb5/\xfd": "compressed with zstd: unpack it",
}


def open_chunks(path: Path, decoding: Decoding) -> Iterator[Chunk]:
    """The rows of one file. Raises DataError if it is missing, empty, or of no known kind."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror}") from None
    with file:
        yield from _container(file, path, decoding)


def _container(file: IO[bytes], path: Path, decoding: Decoding) -> Iterator[Chunk]:
    head = file.read(HEAD_BYTES)
    for mark, what in UNREADABLE.items():
        if head.startswith(mark):
            raise DataError(f"{path}: {what}")
    if head.startswith(b"PAR1"):
        return parquet_chunks(path, decoding)
    if b"\0" in head[:2]:
        raise DataError(f"{path}: not text, or UTF-16 without a byte order mark: convert it to UTF-8")
    start = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    text = head[start:].lstrip(SPACE)
    while not text and (more := file.read(HEAD_BYTES)):
        text = more.lstrip(SPACE)
    file.seek(start)
    if not text:
        raise DataError(f"{path}: the file is empty")
    suffix = path.suffix.lower()
    could_be_prose = suffix == ".txt" or suffix in TABLE_NAMES
    if ARRAY_START.match(text) or (text.startswith(b"[") and not could_be_prose):
        return json_array_chunks(file, path, decoding)
    if OBJECT_START.match(text) or (text.startswith(b"{") and not could_be_prose):
        return json_lines_chunks(file, path, decoding)
    if text.startswith(CHAT_START.encode()):
        return chat_chunks(file, path, decoding)
    if suffix == ".txt":
        return line_chunks(file, path, decoding)
    if suffix in JSON_LINES_NAMES:
        return json_lines_chunks(file, path, decoding)
    header = text.partition(b"\n")[0]
    found = [chr(delimiter) for delimiter in TABLE_NAMES.get(suffix, b"\t,") if delimiter in header]
    if found or suffix in TABLE_NAMES:
        return csv_chunks(file, path, decoding, found[0] if found else ",")
    raise DataError(
        f"{path}: not JSON lines, a JSON array, CSV, Parquet or a plain-text chat; "
        "name it .txt if each line is a prompt"
    )
