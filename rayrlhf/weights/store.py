"""Which weight versions exist. The plain half of the `WeightStore` actor; it holds references, never weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KEPT_VERSIONS = 2
"""A sampler may still be reading the last but one while the newest is published."""


@dataclass(frozen=True)
class Published:
    """A weight version in the object store."""

    version: int
    buckets: list[Any]
    """References to the buckets that the transport packed, in order."""


class VersionStore:
    """Keeps the newest versions and forgets older ones, whose memory is then free."""

    def __init__(self) -> None:
        self._kept: list[Published] = []

    def publish(self, published: Published) -> None:
        """Add a version; it must be newer than every other."""
        if self._kept and published.version <= self._kept[-1].version:
            raise ValueError(f"version {published.version} is not newer than {self._kept[-1].version}")
        self._kept = [*self._kept, published][-KEPT_VERSIONS:]

    @property
    def newest(self) -> Published | None:
        """The newest version, or None before the first."""
        return self._kept[-1] if self._kept else None
