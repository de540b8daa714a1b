"""Held-out splits by prompt: a prompt is never on both sides, and appending rows moves none of the old ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

RecordT = TypeVar("RecordT")


def split_by_prompt(
    records: Sequence[RecordT], key: Callable[[RecordT], str], heldout_share: float, seed: int
) -> tuple[list[RecordT], list[RecordT]]:
    """(training, held out). A record's side depends on its prompt's hash and the seed only."""
    training: list[RecordT] = []
    heldout: list[RecordT] = []
    for record in records:
        digest = hashlib.blake2b(f"{seed}\x1e{key(record)}".encode(), digest_size=8).digest()
        side = heldout if int.from_bytes(digest, "big") / 2**64 < heldout_share else training
        side.append(record)
    return training, heldout
