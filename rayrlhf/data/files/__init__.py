"""Containers: bytes of a file → chunks of raw rows. JSON lines, JSON arrays, CSV, Parquet, plain text, by content."""

from rayrlhf.data.files.base import BadRow, Chunk, Decoding
from rayrlhf.data.files.detect import open_chunks
from rayrlhf.data.files.table import Table

__all__ = ["BadRow", "Chunk", "Decoding", "Table", "open_chunks"]
