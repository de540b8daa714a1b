"""The fleet: which samplers there are, what each is doing, and when one is given up. Pure: a clock in, commands out.

A sampler is placed by the cluster, starts, is ready, and leaves. It may be lost at any moment: its process dies, it
says nothing for too long, it does not start in time, or it keeps a lease beyond its deadline. A lost sampler is killed
and another one, with a new number, takes its place: at once if the lost one had worked, else after a pause, which grows
as long as newcomers fail. Samplers that were there together and are lost together are one failure.

Seconds are accounted by the pool's clock, and those of a sampler that is up by its own reports: what they leave open
when it ends is put down then, so that the sum is the time that samplers, and lost ones not yet replaced, were there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from rayrlhf.pool import goodput
from rayrlhf.pool.leases import Command, Fail, Kill, Lease, Report, Start, Stop

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
    """When it was asked for, placed or up: where its seconds are counted from."""
    heard: float
    """Its last sign of life, later where the pool stood still: what its deadlines are counted from."""
    current: float = 0.0
    """When it last had leases, or weights that are new enough for what is pending."""
    report: Report = field(default_factory=lambda: Report(version=-1))
    leases: dict[int, Lease] = field(default_factory=dict)
    num_tokens: int = 0
    """That its leases take at most."""
    num_rows: int = 0
    """Samples of its leases."""
    fruitful: bool = False
    """Whether an answer of it was accepted."""
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
        self.num_tokens += lease.tokens
        self.num_rows += len(lease.requests)

    def drop(self, lease: Lease) -> None:
        """It holds the lease no longer."""
        del self.leases[lease.id]
        self.num_tokens -= lease.tokens
        self.num_rows -= len(lease.requests)

    def enter(self, phase: Phase, now: float) -> None:
        """Its next phase on the way up."""
        self.seconds = self.account(now)
        self.phase, self.since, self.heard, self.current = phase, now, now, now

    def hear(self, report: Report, now: float) -> None:
        """A sign of life. Reports may overtake each other: the one that accounts for more seconds is the newer one."""
        self.heard = max(self.heard, now)
        if (reported := sum(report.seconds.values())) < sum(self.report.seconds.values()):
            return
        self.report = report
        if reported > now - self.since:
            self._was_up_earlier(reported - (now - self.since))

    def _was_up_earlier(self, seconds: float) -> None:
        """It was up before the pool heard of that. The time is in its reports, so it was no waiting."""
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


@dataclass(frozen=True)
class Patience:
    """How long the fleet waits for what, in seconds."""

    start_s: float
    """For room in the cluster if no sampler has any, for a placed sampler to be ready, and for one that is up to have
    the weights that are needed."""
    silence_s: float
    """Between two signs of life of a sampler that is up."""
    max_failures: int
    """Times in a row that new samplers may be lost without one accepted answer between."""


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
        self._newcomers = 0  # samplers from this number on were started after the last failure
        self._pause = FIRST_PAUSE_S
        self._resume_at = now
        self._room_at = now  # when there last was a sampler with room, or none asked for
        self._dead_since: list[float] = []
        self._ended: Mapping[str, float] = {}
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
        member = self.members.get(member_id)
        if member and member.phase is Phase.PLACING:
            member.enter(Phase.STARTING, now)

    def up(self, member_id: int, now: float) -> None:
        """Its engine is loaded."""
        member = self.members.get(member_id)
        if member and not member.is_up:
            member.enter(Phase.READY, now)

    def heard(self, member_id: int, report: Report, now: float) -> Member | None:
        """A report of a sampler; None if that one was given up before."""
        member = self.members.get(member_id)
        if member is None or not member.is_up:
            return None
        member.hear(report, now)
        return member

    def answered(self, member: Member) -> None:
        """An answer of it was accepted: the fleet works."""
        member.fruitful = True
        self._failures = 0
        if member.id >= self._newcomers:
            self._pause = FIRST_PAUSE_S

    def remove(self, member_id: int, now: float, why: str | None = None) -> Member | None:
        """Take a sampler off; `why` says that it was lost. None if it is off already."""
        member = self.members.pop(member_id, None)
        if member is None:
            return None
        self._tokens_ended += member.report.tokens
        silent = goodput.WAIT_FOR_PROMPTS if why is None else goodput.DEAD
        self._ended = goodput.added([self._ended, member.account(now), {silent: member.unreported(now)}])
        if why is not None:
            self.num_lost += 1
            self._last_failure = why
            self._dead_since.append(now)
            if not member.fruitful and member.id >= self._newcomers:
                self._failures += 1
                self._newcomers = self._next_id
                self._resume_at = now + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return member

    def adjust(self, now: float) -> Iterator[Command]:
        """Start what is missing, send away what is too much, end what has nothing left to do."""
        if self._failures >= self._patience.max_failures:
            yield Fail(
                f"{self._failures} times in a row new samplers were lost before they gave one response; the last one: "
                f"{self._last_failure}; mend that, or raise rollouts.max_failures"
            )
            return
        if not self.members or any(member.phase is not Phase.PLACING for member in self.members.values()):
            self._room_at = now
        leaving = [member for member in self.members.values() if member.phase is Phase.LEAVING]
        num_missing = self.size - (len(self.members) - len(leaving))
        if num_missing < 0:
            leaving += self._send_away(-num_missing)
        while num_missing > 0 and leaving:
            leaving.pop().phase = Phase.READY
            num_missing -= 1
        if now >= self._resume_at:
            for _ in range(num_missing):
                yield self._start(now)
            num_missing = 0
        self._close_dead(max(0, num_missing), now)
        for member in leaving:
            if not member.is_up:
                self.remove(member.id, now)
                yield Kill(member.id, "the fleet was made smaller")
            elif not member.leases:
                self.remove(member.id, now)
                yield Stop(member.id)

    def overdue(self, now: float, needed: int) -> Iterator[tuple[Member, str]]:
        """Samplers to give up, each with the reason. needed: the oldest version that something pending can do with."""
        for member in self.members.values():
            if member.leases or member.version >= needed:
                member.current = now
            if member.phase is Phase.STARTING and now - member.heard > self._patience.start_s:
                yield member, f"it was not ready within timeouts.start_s={self._patience.start_s:g} s"
            elif member.is_up and now - member.heard > self._patience.silence_s:
                yield member, f"it said nothing for rollouts.silence_timeout_s={self._patience.silence_s:g} s"
            elif member.leases and now > next(iter(member.leases.values())).deadline:  # its oldest
                yield member, "it kept a lease beyond rollouts.lease_timeout_s"
            elif member.phase is Phase.READY and now - member.current > self._patience.start_s:
                yield (
                    member,
                    f"its weights were still version {member.version} when {needed} had been needed for "
                    f"timeouts.start_s={self._patience.start_s:g} s",
                )

    def starved(self, now: float) -> Fail | None:
        """Says so if the cluster has had no room for any sampler for too long.

        One that is placed has its own deadline, and pauses after failures end by themselves: neither counts.
        """
        waited = now - self._room_at
        if waited <= self._patience.start_s:
            return None
        last = f"; the last one that was lost: {self._last_failure}" if self._last_failure else ""
        return Fail(
            f"waited {waited:.0f} s for room for a sampler, and {len(self.members)} are not placed yet{last}; free "
            "resources for one (sampler.num_cpus, num_gpus), or raise timeouts.start_s"
        )

    def skip(self, seconds: float) -> None:
        """The pool itself stood still (a laptop that slept, a clock that jumped): nobody is late because of that."""
        for member in self.members.values():
            member.heard += seconds
            member.current += seconds
            for lease in list(member.leases.values()):
                member.leases[lease.id] = replace(lease, deadline=lease.deadline + seconds)
        self._room_at += seconds

    def account(self, now: float) -> dict[str, float]:
        """Seconds of all samplers that ever were, by activity.

        Since its last report each is taken to do what it did then.
        """
        accounts = [self._ended, {goodput.DEAD: sum(now - since for since in self._dead_since)}]
        for member in self.members.values():
            accounts += [member.account(now), {member.report.activity: member.unreported(now)}]
        return goodput.added(accounts)

    def _start(self, now: float) -> Start:
        member = Member(self._next_id, Phase.PLACING, now, heard=now)
        self._next_id += 1
        self.members[member.id] = member
        return Start(member.id)

    def _send_away(self, number: int) -> list[Member]:
        """Choose samplers that leave: those that are not up yet before others, then those with the least to finish."""
        staying = [member for member in self.members.values() if member.phase is not Phase.LEAVING]
        chosen = sorted(staying, key=_worth)[:number]
        for member in chosen:
            if member.is_up:
                member.phase = Phase.LEAVING
        return chosen

    def _close_dead(self, num_missing: int, now: float) -> None:
        """Lost samplers that another one stands in for, or that are not wanted any more, are dead no longer."""
        while len(self._dead_since) > num_missing:
            self._ended = goodput.added([self._ended, {goodput.DEAD: now - self._dead_since.pop(0)}])


def _worth(member: Member) -> tuple[bool, bool, int]:
    """The least is sent away first: one that is not up yet, then the one with the least to finish."""
    return member.is_up, member.phase is Phase.STARTING, member.num_tokens
