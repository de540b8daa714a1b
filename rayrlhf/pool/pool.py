"""The rollout pool: which sampler generates what, and which answers count. Pure: events and a clock in, commands out.

Every group is leased to one sampler. An answer counts only if that sampler still holds the lease, so answers that come
late, twice, or from a replaced sampler are ignored; and only if none of its tokens is older than the batch allows, else
the group is leased again. A sampler gets a lease only when its weights are new enough for it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rayrlhf.pool.commands import Accept, Command, Deliver, Kill, Send
from rayrlhf.pool.fleet import Fleet, Patience
from rayrlhf.pool.leases import Answer, Group, Lease, Report, SampleBatch
from rayrlhf.pool.ledger import Ledger, State
from rayrlhf.pool.member import Member

QUEUED_AHEAD = 1.25
"""Samples that a sampler may hold, as a multiple of its engine's slots: it never waits for the next lease."""


@dataclass(frozen=True)
class PoolSettings:
    """What the pool's logic is configured with."""

    num_samplers: int
    patience: Patience
    lease_s: float
    num_slots: int
    """Responses that one engine generates at the same time."""
    max_pause_s: float
    """If two events, ticks included, are further apart, the pool itself stood still and no sampler is to blame."""

    @property
    def capacity(self) -> int:
        """Samples that one sampler may hold."""
        return int(self.num_slots * QUEUED_AHEAD)


@dataclass
class Progress:
    """A batch in flight."""

    batch: SampleBatch
    pending: deque[Group]
    num_pending: int
    """Samples of the pending groups."""
    num_missing: int
    """Samples without an accepted answer."""
    rollouts: list[Any] = field(default_factory=list)
    """Of the accepted groups."""

    def pop(self) -> Group:
        """The next group to lease."""
        group = self.pending.popleft()
        self.num_pending -= len(group)
        return group

    def put_back(self, group: Group) -> None:
        """Lease a group again, before the others."""
        self.pending.appendleft(group)
        self.num_pending += len(group)


class Pool:
    """Ledger, fleet and the batches in flight. Each event is a method that returns the commands that follow from it."""

    def __init__(self, settings: PoolSettings, now: float) -> None:
        self.settings = settings
        self.ledger = Ledger()
        self.fleet = Fleet(settings.num_samplers, settings.patience, now)
        self.ignored: Counter[str] = Counter()
        """Answers that did not count, by reason."""
        self._batches: dict[int, Progress] = {}
        self._taken: dict[int, SampleBatch] = {}
        self._next_lease = 0
        self._last_event = now

    def submit(self, batch: SampleBatch, now: float) -> list[Command]:
        """Samples to generate."""
        self._keep_time(now)
        self.ledger.add(batch.keys)
        self._batches[batch.id] = Progress(batch, deque(batch.groups()), len(batch.samples), len(batch.samples))
        return self._react(now)

    def take(self, batch_id: int) -> list[Any]:
        """The rollouts of a complete batch, group by group; the pool keeps none of them."""
        progress = self._batches.pop(batch_id)
        assert not progress.num_missing, f"batch {batch_id} still lacks {progress.num_missing} samples"
        self._taken[batch_id] = progress.batch
        return progress.rollouts

    def settle(self, batch_id: int, rejected: Mapping[tuple[int, int], str]) -> None:
        """Record what became of a taken batch's samples. rejected: reason by (prompt id, sample id)."""
        batch = self._taken.pop(batch_id)
        end = State.TRAINED if batch.purpose == "train" else State.USED
        for key in batch.keys:
            reason = rejected.get(key[1:])
            if reason is None:
                self.ledger.move([key], end)
            else:
                self.ledger.reject([key], reason)

    def placed(self, member_id: int, now: float) -> list[Command]:
        """The cluster placed a sampler."""
        self._keep_time(now)
        self.fleet.placed(member_id, now)
        return self._react(now)

    def up(self, member_id: int, now: float) -> list[Command]:
        """A sampler is ready."""
        self._keep_time(now)
        self.fleet.up(member_id, now)
        return self._react(now)

    def heard(self, member_id: int, report: Report, now: float) -> list[Command]:
        """A report of a sampler."""
        self._keep_time(now)
        member = self.fleet.heard(member_id, report, now)
        accepted: list[Command] = []
        for answer in report.answers:
            accepted += self._accept(member, answer)
        return [*accepted, *self._react(now)]

    def lost(self, member_id: int, why: str, now: float) -> list[Command]:
        """A sampler died."""
        self._keep_time(now)
        self._lose(member_id, why, now)
        return self._react(now)

    def scale(self, num_samplers: int, now: float) -> list[Command]:
        """Change the number of samplers."""
        self._keep_time(now)
        self.fleet.size = num_samplers
        return self._react(now)

    def tick(self, now: float) -> list[Command]:
        """Time passed."""
        self._keep_time(now)
        commands: list[Command] = []
        needed = min((p.batch.min_version for p in self._batches.values() if p.pending), default=-1)
        for member, why in [*self.fleet.overdue(now, needed)]:
            self._lose(member.id, why, now)
            commands.append(Kill(member.id, why))
        commands += self._react(now)
        if failure := self.fleet.starved(now):
            commands.append(failure)
        return commands

    def outlook(self) -> dict[str, int]:
        """Samples of batches not yet taken: those that are done, leased, pending."""
        batches = self._batches.values()
        return {
            "done": sum(len(progress.batch.samples) - progress.num_missing for progress in batches),
            "leased": sum(member.num_samples for member in self.fleet.members.values()),
            "pending": sum(progress.num_pending for progress in batches),
        }

    def _keep_time(self, now: float) -> None:
        """Comes first in every event, so that no sampler is blamed for time in which the pool stood still."""
        paused, self._last_event = now - self._last_event, now
        if paused > self.settings.max_pause_s:
            self.fleet.skip(paused)

    def _react(self, now: float) -> list[Command]:
        """Comes last in every event. The fleet first: a sampler that was leaving may stay and take leases."""
        return [*self.fleet.adjust(now), *self._dispatch(now)]

    def _lose(self, member_id: int, why: str, now: float) -> None:
        if member := self.fleet.remove(member_id, now, why):
            self._take_back(member)

    def _accept(self, member: Member | None, answer: Answer) -> Iterable[Command]:
        lease = self._lease(member, answer)
        if member is None or lease is None:
            self.ignored["late"] += 1
            return
        member.drop(lease)
        progress = self._batches[lease.batch_id]
        if not self._is_fresh(lease, answer):
            self.ignored["stale"] += 1
            self.ledger.move(lease.keys, State.PENDING)
            progress.put_back(lease.samples)
            return
        self.ledger.move(lease.keys, State.DONE)
        self.fleet.answered(member)
        progress.rollouts.append(answer.rollouts)
        progress.num_missing -= len(lease.samples)
        yield Accept(lease.batch_id, answer.rollouts)
        if not progress.num_missing:
            yield Deliver(lease.batch_id)

    def _lease(self, member: Member | None, answer: Answer) -> Lease | None:
        """The lease that an answer is for, if that sampler still holds it."""
        return None if member is None else member.leases.get(answer.lease_id)

    def _is_fresh(self, lease: Lease, answer: Answer) -> bool:
        """Whether none of its tokens is older than its batch allows."""
        return answer.oldest_version >= lease.min_version

    def _take_back(self, member: Member) -> None:
        for lease in reversed(member.leases.values()):
            self.ledger.move(lease.keys, State.PENDING)
            self._batches[lease.batch_id].put_back(lease.samples)

    def _dispatch(self, now: float) -> Iterable[Command]:
        """Lease what is pending, earlier steps first, each group to the sampler with the fewest tokens to generate.

        A sampler without room for a step's next group gets none of a later step, else large groups would never fit.
        None gets more than its share of all that is left, so that those whose weights arrive later find theirs.
        """
        waiting = sorted((p for p in self._batches.values() if p.pending), key=lambda p: (p.batch.step, p.batch.id))
        free = self.fleet.ready
        if not waiting or not free:
            return
        left = sum(progress.num_pending for progress in waiting) + sum(member.num_samples for member in free)
        share = left // len(free)
        sent: dict[Member, list[Lease]] = {}
        for progress in waiting:
            batch = progress.batch
            able = [member for member in free if member.version >= batch.min_version]
            while progress.pending:
                most = min(self.settings.capacity - len(progress.pending[0]), share)
                with_room = [member for member in able if member.num_samples <= most or not member.num_samples]
                if not with_room:
                    free = [member for member in free if member.version < batch.min_version]
                    break
                member = min(with_room, key=_load)
                deadline = now + self.settings.lease_s
                group = progress.pop()
                lease = Lease(self._next_lease, batch.id, group, batch.sampling, batch.min_version, deadline)
                self._next_lease += 1
                self.ledger.move(lease.keys, State.LEASED)
                member.take(lease)
                sent.setdefault(member, []).append(lease)
        for member, leases in sent.items():
            yield Send(member.id, tuple(leases))


def _load(member: Member) -> int:
    return member.num_tokens
