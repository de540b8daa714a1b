"""What a running job says of itself: a snapshot for `rayrlhf status` and for the step's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rayrlhf.pool import goodput
from rayrlhf.pool.fleet import Member
from rayrlhf.pool.pool import Pool


@dataclass(frozen=True)
class SamplerStatus:
    """One sampler."""

    id: int
    phase: str
    version: int
    leases: int
    samples: int
    """Of its leases."""
    running: int
    """Responses that its engine works on."""
    tokens: int
    """Drawn since it was ready."""
    silent_s: float
    """Since its last sign of life."""
    pid: int | None
    node: str | None

    @staticmethod
    def of(member: Member, now: float, pid: int | None, node: str | None) -> SamplerStatus:
        """As the pool knows it."""
        return SamplerStatus(
            member.id,
            member.phase.value,
            member.version,
            len(member.leases),
            member.num_rows,
            member.report.running,
            member.report.tokens,
            now - member.heard,
            pid,
            node,
        )


@dataclass(frozen=True)
class Status:
    """The rollouts of a run at one moment."""

    wanted: int
    """Samplers that were asked for."""
    lost: int
    """Samplers that died or were given up."""
    samplers: tuple[SamplerStatus, ...]
    ledger: Mapping[str, int]
    """Samples by state."""
    rejected: Mapping[str, int]
    """Samples by reason."""
    ignored: Mapping[str, int]
    """Answers that did not count, by reason."""
    outlook: Mapping[str, int]
    tokens: int
    """Drawn by all samplers there are and were."""
    seconds: Mapping[str, float]
    """Of all samplers, by activity."""
    uptime_s: float

    @staticmethod
    def of(pool: Pool, samplers: tuple[SamplerStatus, ...], now: float, uptime_s: float) -> Status:
        """As the pool knows it."""
        return Status(
            pool.fleet.size,
            pool.fleet.num_lost,
            samplers,
            pool.ledger.counts,
            dict(pool.ledger.reasons),
            dict(pool.ignored),
            pool.outlook(),
            pool.fleet.tokens,
            pool.fleet.account(now),
            uptime_s,
        )

    def metrics(self) -> dict[str, float]:
        """For the step's metrics; goodput is shares of all samplers' time since the run began."""
        up = [sampler for sampler in self.samplers if sampler.phase == "ready"]
        figures = {
            "engine/samplers": float(len(up)),
            "engine/samplers_lost": float(self.lost),
            "ledger/trained_total": float(self.ledger["trained"]),
            "ledger/rejected_total": float(self.ledger["rejected"]),
            "ledger/stale": float(self.ignored.get("stale", 0)),
            "ledger/late": float(self.ignored.get("late", 0)),
        }
        shares = goodput.shares(self.seconds)
        return figures | {f"goodput/sampler_{name}": shares.get(name, 0.0) for name in goodput.SAMPLER_ACTIVITIES}
