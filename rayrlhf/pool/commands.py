"""What the pool's logic wants done; its runner does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rayrlhf.pool.leases import Lease


@dataclass(frozen=True)
class Start:
    """Start a sampler."""

    member: int


@dataclass(frozen=True)
class Send:
    """Send a sampler its leases."""

    member: int
    leases: tuple[Lease, ...]


@dataclass(frozen=True)
class Stop:
    """End a sampler that has nothing left to do."""

    member: int


@dataclass(frozen=True)
class Kill:
    """End a sampler whatever state it is in."""

    member: int
    why: str


@dataclass(frozen=True)
class Accept:
    """A group of a batch was accepted: announce it. Comes once per group, before the batch's `Deliver`."""

    batch_id: int
    rollouts: Any
    """The group's `Rollouts`."""


@dataclass(frozen=True)
class Deliver:
    """A batch is complete."""

    batch_id: int


@dataclass(frozen=True)
class Fail:
    """The run cannot continue."""

    message: str


Command = Start | Send | Stop | Kill | Accept | Deliver | Fail
