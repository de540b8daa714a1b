"""Plain text: kochatgpt's chats, and files of one prompt per line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rayrlhf.data.files.base import CHUNK_ROWS, BadRow, Chunk, Decoding

CHAT_START = "<<start conversation>>"
SPEAKERS = {"<사람>": "user", "<챗봇>": "assistant"}


def line_chunks(file: IO[bytes], path: Path, decoding: Decoding) -> Iterator[Chunk]:
    """Each line that is not blank, as `{"line": line}`."""
    numbered = ((place, line) for place, line in enumerate(file, start=1) if line.strip())
    while batch := list(itertools.islice(numbered, CHUNK_ROWS)):
        values: list[Any] = []
        for place, line in batch:
            text = decoding.text(line.rstrip(b"\r\n"), path, "line", place)
            values.append(text if isinstance(text, BadRow) else {"line": text})
        yield Chunk(values, [place for place, _ in batch], sum(len(line) for _, line in batch))


def chat_chunks(file: IO[bytes], path: Path, decoding: Decoding) -> Iterator[Chunk]:
    """Each conversation as `{"messages": […]}`; its place is its first line.

    A line without a speaker continues the turn before it.
    """
    conversations = _conversations(file, path, decoding)
    while batch := list(itertools.islice(conversations, CHUNK_ROWS)):
        yield Chunk([value for _, value, _ in batch], [at for at, _, _ in batch], sum(size for _, _, size in batch))


def _conversations(file: IO[bytes], path: Path, decoding: Decoding) -> Iterator[tuple[int, Any, int]]:
    start, size = 0, 0
    lines: list[tuple[int, bytes]] = []
    for place, line in enumerate(file, start=1):
        if line.strip() == CHAT_START.encode():
            if start:
                yield start, _messages(lines, path, decoding), size
            start, size, lines = place, 0, []
        else:
            lines.append((place, line.rstrip(b"\r\n")))
        size += len(line)
    if start:
        yield start, _messages(lines, path, decoding), size


def _messages(lines: list[tuple[int, bytes]], path: Path, decoding: Decoding) -> Any:
    messages: list[dict[str, str]] = []
    for place, line in lines:
        text = decoding.text(line, path, "line", place)
        if isinstance(text, BadRow):
            return BadRow(text.reason, f"line {place}: {text.detail}", text.raw)
        speaker, colon, said = text.partition(":")
        role = SPEAKERS.get(speaker.strip())
        if role and colon:
            messages.append({"role": role, "content": said.strip()})
        elif messages:
            messages[-1]["content"] = f"{messages[-1]['content']}\n{text}".rstrip()
        elif text.strip():
            return BadRow("malformed row", f"line {place}: no speaker ({' or '.join(SPEAKERS)})", text)
    return {"messages": messages}
