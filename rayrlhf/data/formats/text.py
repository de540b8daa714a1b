"""Whole texts, `{text}`: recognized to be refused, for neither a prompt nor an answer is what they are meant to be."""

from __future__ import annotations

from typing import ClassVar

from rayrlhf.data.formats.base import Row
from rayrlhf.data.ingest.records import Kind


class Text(Row):
    name: ClassVar[str] = "text"
    gives: ClassVar[tuple[Kind, ...]] = ()
    advice: ClassVar[str] = (
        "they are whole texts (language modeling), and every stage here trains answers to prompts. If each text is a "
        "prompt, set format=text_line; else split it into {prompt, completion} or {messages}"
    )
    text: str
