"""Containers of rows: JSON lines, JSON arrays, CSV, Parquet, plain text. Which one a file is, its content says."""

from rayrlhf.data.files.base import BadRow, Chunk, Decoding
from rayrlhf.data.files.detect import open_chunks

__all__ = ["BadRow", "Chunk", "Decoding", "open_chunks"]
