"""The fleet: which samplers there are, what each is doing, and when one is given up. Pure: a clock in, commands out.

A sampler is placed by the cluster, starts, is ready, and leaves. It may be lost at any moment: its process dies, it
says nothing for too long, it does not start in time, or it keeps a lease beyond its deadline. A lost sampler is killed
and another one, with a new number, takes its place: the first at once, later ones after a growing pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from rayrlhf.rollout import goodput
from rayrlhf.rollout.leases import Command, Fail, Kill, Lease, Report, Start, Stop

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


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
    """When it entered the phase."""
    heard: float
    """Its last sign of life."""
    report: Report = field(default_factory=lambda: Report(version=-1))
    leases: dict[int, Lease] = field(default_factory=dict)
    num_tokens: int = 0
    """That its leases take at most."""
    num_rows: int = 0
    """Samples of its leases."""
    fruitful: bool = False
    """Whether an answer of it was accepted."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Before it was ready."""

    @property
    def version(self) -> int:
        return self.report.version

    @property
    def is_up(self) -> bool:
        return self.phase in (Phase.READY, Phase.LEAVING)

    def take(self, lease: Lease) -> None:
        """It holds the lease from now on."""
        self.leases[lease.id] = lease
        self.num_tokens += lease.tokens
        self.num_rows += len(lease.requests)

    def drop(self, lease: Lease) -> None:
        """It holds the lease no longer."""
        del self.leases[lease.id]
        self.num_tokens -= lease.tokens
        self.num_rows -= len(lease.requests)

    def waiting(self, now: float) -> dict[str, float]:
        """Seconds in its phase before it is up, by activity."""
        return {goodput.WAIT_FOR_ROOM if self.phase is Phase.PLACING else goodput.START_UP: now - self.since}

    def account(self) -> dict[str, float]:
        """Its seconds by activity, until its last sign of life."""
        return goodput.added([self.seconds, self.report.seconds])


@dataclass(frozen=True)
class Patience:
    """How long the fleet waits for what, in seconds."""

    start_s: float
    """For a placed sampler to be ready, and for any sampler at all."""
    silence_s: float
    """Between two signs of life of a sampler that is up."""
    max_failures: int
    """Samplers in a row that may be lost without one accepted answer between."""


class Fleet:
    """Keeps as many samplers as were asked for."""

    def __init__(self, size: int, patience: Patience, now: float) -> None:
        self.size = size
        self.members: dict[int, Member] = {}
        self.num_lost = 0
        self._patience = patience
        self._next_id = 0
        self._failures = 0
        self._last_failure = ""
        self._resume_at = now
        self._none_since: float | None = now
        self._dead_since: list[float] = []
        self._ended: list[Mapping[str, float]] = []
        self._tokens_ended = 0

    @property
    def ready(self) -> list[Member]:
        """Samplers that take leases."""
        return [member for member in self.members.values() if member.phase is Phase.READY]

    @property
    def tokens(self) -> int:
        """Drawn by all samplers there are and were, as far as they said."""
        return self._tokens_ended + sum(member.report.tokens for member in self.members.values())

    def placed(self, member_id: int, now: float) -> None:
        """The cluster found room for it."""
        if member := self.members.get(member_id):
            self._enter(member, Phase.STARTING, now)

    def up(self, member_id: int, now: float) -> None:
        """Its engine is loaded."""
        member = self.members.get(member_id)
        if member and not member.is_up:
            self._enter(member, Phase.READY, now)
            self._none_since = None

    def heard(self, member_id: int, report: Report, now: float) -> Member | None:
        """A report of a sampler; None if that one was given up before."""
        member = self.members.get(member_id)
        if member is None or not member.is_up:
            return None
        member.report, member.heard = report, now
        return member

    def answered(self, member: Member) -> None:
        """An answer of it was accepted: the fleet works."""
        member.fruitful = True
        self._failures = 0

    def remove(self, member_id: int, now: float, why: str | None = None) -> Member | None:
        """Take a sampler off; `why` says that it was lost. None if it is off already."""
        member = self.members.pop(member_id, None)
        if member is None:
            return None
        silent = goodput.DEAD if why else goodput.WAIT_FOR_PROMPTS
        self._tokens_ended += member.report.tokens
        self._ended += [member.account(), {silent: now - member.heard} if member.is_up else member.waiting(now)]
        if why is not None:
            self.num_lost += 1
            self._last_failure = why
            if not member.fruitful:
                self._failures += 1
                pause = min(FIRST_PAUSE_S * 2 ** (self._failures - 1), LONGEST_PAUSE_S)
                self._resume_at = max(self._resume_at, now + pause)
            self._dead_since.append(now)
        return member

    def resize(self, size: int, now: float) -> list[Command]:
        """Ask for `size` samplers from now on. Those that leave finish what they have."""
        self.size = size
        return list(self.adjust(now))

    def adjust(self, now: float) -> Iterator[Command]:
        """Start what is missing, send away what is too much, end what has nothing left to do."""
        staying = [member for member in self.members.values() if member.phase is not Phase.LEAVING]
        if self._failures >= self._patience.max_failures:
            yield Fail(
                f"{self._failures} samplers in a row were lost before they gave one response; the last one: "
                f"{self._last_failure}; mend that, or raise rollouts.max_failures"
            )
            return
        for member in [m for m in self.members.values() if m.phase is Phase.LEAVING][
            : max(0, self.size - len(staying))
        ]:
            member.phase = Phase.READY
            staying.append(member)
        if now >= self._resume_at:
            for _ in range(self.size - len(staying)):
                staying.append(self._new(now))
                yield Start(staying[-1].id)
        self._close_dead(max(0, self.size - len(staying)), now)
        for member in sorted(staying, key=_worth)[: max(0, len(staying) - self.size)]:
            if member.is_up:
                member.phase = Phase.LEAVING
            else:
                self.remove(member.id, now)
                yield Kill(member.id, "the fleet was made smaller")
        for member in list(self.members.values()):
            if member.phase is Phase.LEAVING and not member.leases:
                self.remove(member.id, now)
                yield Stop(member.id)

    def overdue(self, now: float) -> Iterator[tuple[Member, str]]:
        """Samplers to give up, each with the reason."""
        for member in self.members.values():
            if member.phase is Phase.STARTING and now - member.since > self._patience.start_s:
                yield member, f"it was not ready within timeouts.start_s={self._patience.start_s:g} s"
            elif member.is_up and now - member.heard > self._patience.silence_s:
                yield member, f"it said nothing for rollouts.silence_timeout_s={self._patience.silence_s:g} s"
            elif any(now > lease.deadline for lease in member.leases.values()):
                yield member, "it kept a lease beyond rollouts.lease_timeout_s"

    def starved(self, now: float) -> Fail | None:
        """Says so if there has been no sampler at all for too long."""
        if self.ready:
            self._none_since = None
        elif self._none_since is None:
            self._none_since = now
        if self._none_since is None or now - self._none_since <= self._patience.start_s:
            return None
        phases = ", ".join(f"sampler {m.id} is {m.phase.value}" for m in self.members.values()) or "none is there"
        last = f"; the last one that was lost: {self._last_failure}" if self._last_failure else ""
        return Fail(
            f"waited {now - self._none_since:.0f} s for a sampler: {phases}{last}; free resources for one "
            "(sampler.num_cpus, num_gpus), or raise timeouts.start_s"
        )

    def skip(self, seconds: float) -> None:
        """The pool itself stood still (a laptop that slept, a clock that jumped): nobody is late because of that."""
        for member in self.members.values():
            member.heard += seconds
            if not member.is_up:
                member.since += seconds
            for lease in list(member.leases.values()):
                member.leases[lease.id] = replace(lease, deadline=lease.deadline + seconds)
        self._resume_at += seconds
        if self._none_since is not None:
            self._none_since += seconds

    def account(self, now: float) -> dict[str, float]:
        """Seconds of all samplers that ever were, by activity."""
        accounts: list[Mapping[str, float]] = [*self._ended]
        for member in self.members.values():
            accounts += [member.account(), {} if member.is_up else member.waiting(now)]
        accounts.append({goodput.DEAD: sum(now - since for since in self._dead_since)})
        return goodput.added(accounts)

    def _new(self, now: float) -> Member:
        member = Member(self._next_id, Phase.PLACING, now, heard=now)
        self._next_id += 1
        self.members[member.id] = member
        return member

    def _close_dead(self, num_missing: int, now: float) -> None:
        """Lost samplers that another one stands in for, or that are not wanted any more, are dead no longer."""
        while len(self._dead_since) > num_missing:
            self._ended.append({goodput.DEAD: now - self._dead_since.pop(0)})

    def _enter(self, member: Member, phase: Phase, now: float) -> None:
        member.seconds = goodput.added([member.seconds, member.waiting(now)])
        member.phase, member.since, member.heard = phase, now, now


def _worth(member: Member) -> tuple[bool, bool, int]:
    """The least is sent away first: one that is not up yet, then the one with the least to finish."""
    return member.is_up, member.phase is Phase.STARTING, member.num_tokens
