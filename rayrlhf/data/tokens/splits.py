"""Splits by prompt: a prompt is never in two of them, and appending rows moves none of the old ones.

A conversation goes by its first question, so its turns, each of which repeats those before it, stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rayrlhf.data.ingest.records import PromptText


def position(key: str, seed: int) -> float:
    """Where a key falls in [0, 1), by its hash and the seed only."""
    digest = hashlib.blake2b(f"{seed}\x1e{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # as many bits as a float holds: 1.0 is not reached


def split_of(prompt: PromptText, shares: Sequence[float], seed: int) -> int:
    """Index of the split that a prompt belongs to; `shares` add up to 1, the last one takes what rounding leaves."""
    at = position(prompt.opening, seed)
    reached = 0.0
    for index, share in enumerate(shares[:-1]):
        reached += share
        if at < reached:
            return index
    return len(shares) - 1
