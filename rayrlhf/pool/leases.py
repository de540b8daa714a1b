"""What the loop, the pool and its samplers send each other. All of it is picklable and knows nothing of Ray."""

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
"""What running responses do when new weights arrive: continue with them, or finish with the old ones first."""

Group = tuple[Sample, ...]
"""The samples of one prompt in a step: they share a prefix, so one sampler generates them."""


@dataclass(frozen=True)
class SampleBatch:
    """Samples that the loop requests together."""

    id: int
    step: int
    """The step that they are for: earlier steps are served first."""
    samples: tuple[Sample, ...]
    sampling: Sampling
    min_version: int
    """Tokens of older weights are not accepted. Versions begin at 0; −1 means no weights at all."""
    purpose: Purpose = "train"

    def __post_init__(self) -> None:
        assert self.samples, f"batch {self.id} has no samples, so it would never be complete"
        assert self.min_version >= 0, f"batch {self.id} would accept samples of an engine without weights"

    @property
    def keys(self) -> list[Key]:
        """The samples in the ledger."""
        return [(self.id, sample.prompt.id, sample.sample_id) for sample in self.samples]

    def groups(self) -> list[Group]:
        """The samples by prompt, in order."""
        groups: dict[int, list[Sample]] = {}
        for sample in self.samples:
            groups.setdefault(sample.prompt.id, []).append(sample)
        return [tuple(group) for group in groups.values()]


@dataclass(frozen=True)
class Lease:
    """A group that one sampler holds until the deadline. Its id is never reused."""

    id: int
    batch_id: int
    samples: Group
    sampling: Sampling
    min_version: int
    """Of the batch."""
    deadline: float
    """On the pool's clock, in seconds."""

    @property
    def keys(self) -> list[Key]:
        """The samples in the ledger."""
        return [(self.batch_id, sample.prompt.id, sample.sample_id) for sample in self.samples]

    @cached_property
    def max_tokens(self) -> int:
        """Prompt and response tokens at most: dispatch balances samplers by them."""
        longest = self.sampling.max_completion_length
        return sum(len(sample.prompt.token_ids) + longest for sample in self.samples)


@dataclass(frozen=True)
class Answer:
    """All responses of one lease."""

    lease_id: int
    oldest_version: int
    """The oldest weights that generated any of its tokens."""
    rollouts: Any
    """`Rollouts`; the pool's logic never looks into it."""


@dataclass(frozen=True)
class Report:
    """What a sampler sends when something has changed, and at least every heartbeat."""

    version: int
    """Of the weights in its engine; −1 before the first."""
    answers: tuple[Answer, ...] = ()
    running: int = 0
    """Responses that its engine is generating."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Since it was ready, by activity: see `goodput`."""
    activity: str = goodput.WAIT_FOR_WEIGHTS
    """What it was doing when it sent this."""
    tokens: int = 0
    """Generated since it was ready."""
