"""What the pool and its samplers say to each other. All of it is picklable and knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from rayrlhf.engines.base import Sampling
from rayrlhf.pool import goodput
from rayrlhf.pool.ledger import Key
from rayrlhf.types import Sample

Purpose = Literal["train", "baseline", "evaluate"]

OnUpdate = Literal["continue", "finish"]
"""What running responses do when new weights are there: go on with them, or end first with the old ones."""


@dataclass(frozen=True)
class SampleBatch:
    """Samples that the loop asks for together."""

    id: int
    step: int
    """Whose turn it is for: earlier steps are served first."""
    requests: tuple[Sample, ...]
    sampling: Sampling
    min_version: int
    """Tokens drawn with older weights are not accepted. Versions begin at 0: −1 is no weights at all."""
    purpose: Purpose = "train"

    def __post_init__(self) -> None:
        assert self.requests, f"order {self.id} asks for nothing, so it would never be complete"
        assert self.min_version >= 0, f"order {self.id} would take samples of an engine without weights"

    def groups(self) -> list[tuple[Sample, ...]]:
        """The samples of each prompt together, in order: they share a prefix, so one sampler draws them."""
        groups: dict[int, list[Sample]] = {}
        for request in self.requests:
            groups.setdefault(request.prompt.id, []).append(request)
        return [tuple(group) for group in groups.values()]


@dataclass(frozen=True)
class Lease:
    """A group that one sampler may draw until the deadline. Its id is never given out again."""

    id: int
    order: SampleBatch
    requests: tuple[Sample, ...]
    deadline: float
    """On the pool's clock, in seconds."""

    @property
    def keys(self) -> list[Key]:
        """The samples in the ledger."""
        return [(self.order.id, request.prompt.id, request.sample_id) for request in self.requests]

    @cached_property
    def tokens(self) -> int:
        """How many tokens it takes at most: what dispatch weighs samplers by."""
        most = self.order.sampling.max_completion_length
        return sum(len(request.prompt.token_ids) + most for request in self.requests)


@dataclass(frozen=True)
class Assignment:
    """A lease as its sampler sees it."""

    lease_id: int
    requests: tuple[Sample, ...]
    sampling: Sampling


@dataclass(frozen=True)
class Answer:
    """All responses of one lease."""

    lease_id: int
    oldest_version: int
    """Of the weights that drew any of its tokens."""
    rollouts: Any
    """`Rollouts`; the pool's logic never looks into it."""


@dataclass(frozen=True)
class Report:
    """What a sampler says when it has news, and at least every heartbeat."""

    version: int
    """Of the weights in its engine; −1 before the first."""
    answers: tuple[Answer, ...] = ()
    running: int = 0
    """Responses that its engine works on."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Since it was ready, by what it did: see `goodput`."""
    activity: str = goodput.WAIT_FOR_WEIGHTS
    """What it was doing then."""
    tokens: int = 0
    """Drawn since it was ready."""


# What the pool's logic wants done.


@dataclass(frozen=True)
class Start:
    """Start a sampler."""

    member: int


@dataclass(frozen=True)
class Send:
    """Hand a sampler its leases."""

    member: int
    leases: tuple[Lease, ...]


@dataclass(frozen=True)
class Stop:
    """End a sampler that has nothing left to do."""

    member: int


@dataclass(frozen=True)
class Kill:
    """End a sampler that is lost, whatever state it is in."""

    member: int
    why: str


@dataclass(frozen=True)
class Deliver:
    """An order is complete."""

    order: int


@dataclass(frozen=True)
class Fail:
    """The run cannot go on."""

    message: str


Command = Start | Send | Stop | Kill | Deliver | Fail
