"""One sampler of the fleet: its phase, its leases, and an account of its seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from rayrlhf.pool import goodput
from rayrlhf.pool.leases import Lease, Report


class Phase(StrEnum):
    """Of a sampler's life."""

    PLACING = "placing"
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


@dataclass(eq=False)
class Member:
    """One sampler process."""

    id: int
    phase: Phase
    since: float
    """When it was requested, placed or up: its seconds count from here."""
    last_heard: float
    """Its last sign of life, moved on by the time that the pool stood still: its deadlines count from here."""
    last_useful: float = 0.0
    """When it last had leases, or weights that are new enough for what is pending."""
    report: Report = field(default_factory=lambda: Report(version=-1))
    leases: dict[int, Lease] = field(default_factory=dict)
    num_tokens: int = 0
    """Of its leases, at most."""
    num_samples: int = 0
    """Of its leases."""
    has_answered: bool = False
    """Whether one of its answers was accepted."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Before it was up, by activity."""

    @property
    def version(self) -> int:
        return self.report.version

    @property
    def is_up(self) -> bool:
        return self.phase in (Phase.READY, Phase.LEAVING)

    def take(self, lease: Lease) -> None:
        """It holds the lease from now on."""
        self.leases[lease.id] = lease
        self.num_tokens += lease.max_tokens
        self.num_samples += len(lease.samples)

    def drop(self, lease: Lease) -> None:
        """It no longer holds the lease."""
        del self.leases[lease.id]
        self.num_tokens -= lease.max_tokens
        self.num_samples -= len(lease.samples)

    def enter(self, phase: Phase, now: float) -> None:
        """Its next phase on the way up."""
        self.seconds = self.account(now)
        self.phase, self.since, self.last_heard, self.last_useful = phase, now, now, now

    def hear(self, report: Report, now: float) -> None:
        """A sign of life. Reports may overtake each other: the one that accounts for more seconds is newer."""
        self.last_heard = max(self.last_heard, now)
        if (reported := sum(report.seconds.values())) < sum(self.report.seconds.values()):
            return
        self.report = report
        if reported > now - self.since:
            self._was_up_earlier(reported - (now - self.since))

    def _was_up_earlier(self, seconds: float) -> None:
        """It was up before the pool heard of it. Its reports account for that time, so it was not waiting."""
        for activity in (goodput.START_UP, goodput.WAIT_FOR_ROOM):
            waited = self.seconds.get(activity, 0.0)
            moved = min(seconds, waited)
            self.seconds[activity] = waited - moved
            self.since -= moved
            seconds -= moved

    def account(self, now: float) -> dict[str, float]:
        """Its seconds by activity: until its newest report if it is up, else until now."""
        if self.is_up:
            return goodput.added([self.seconds, self.report.seconds])
        waiting = goodput.WAIT_FOR_ROOM if self.phase is Phase.PLACING else goodput.START_UP
        return goodput.added([self.seconds, {waiting: now - self.since}])

    def unreported(self, now: float) -> float:
        """Seconds that its account lacks."""
        return max(0.0, now - self.since - sum(self.report.seconds.values())) if self.is_up else 0.0
