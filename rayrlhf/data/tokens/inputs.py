"""A stage's data as tokens, with a progress bar for sets that take long."""

from __future__ import annotations

from typing import Any

from rayrlhf.data.ingest.progress import reading_progress
from rayrlhf.data.ingest.records import Kind
from rayrlhf.data.tokens.prepare import DataConfig, Prepared, prepare
from rayrlhf.data.tokens.tokenise import Limit


def prepare_with_progress(data: DataConfig, kind: Kind, tokenizer: Any, limit: Limit, seed: int) -> Prepared:
    """`rayrlhf.data.tokens.prepare.prepare`, watched."""
    with reading_progress("preparing data", data.files) as advance:
        return prepare(data, kind, tokenizer, limit, seed, advance)
