"""The rollout pool: which sampler draws what, and which answers count. Pure: events and a clock in, commands out.

Every group of samples is leased to one sampler. An answer counts only if its lease is still that sampler's, so what
comes late, twice, or from a sampler that was given up is ignored; and only if none of its tokens is older than the
order allows, else the group is leased again. A sampler gets leases only when its weights are new enough for them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rayrlhf.pool.fleet import Fleet, Member, Patience
from rayrlhf.pool.leases import Answer, Command, Deliver, Kill, Lease, Report, SampleBatch, Send
from rayrlhf.pool.ledger import Ledger, State
from rayrlhf.types import Sample

QUEUED_AHEAD = 1.25
"""Samples that a sampler may hold, as a multiple of what its engine works on: it never waits for the next lease."""

Group = tuple[Sample, ...]


@dataclass(frozen=True)
class PoolSettings:
    """What the pool needs to know."""

    num_samplers: int
    patience: Patience
    lease_s: float
    max_num_seqs: int
    """Responses that one engine works on."""
    max_pause_s: float
    """A longer time between two events, ticks included, means that the pool stood still, not the samplers."""

    @property
    def capacity(self) -> int:
        """Samples that one sampler may hold."""
        return int(self.max_num_seqs * QUEUED_AHEAD)


@dataclass
class Progress:
    """How far an order is."""

    order: SampleBatch
    pending: deque[Group]
    num_pending: int
    """Samples of the groups that are pending."""
    num_missing: int
    """Samples without an accepted answer."""
    answers: list[Any] = field(default_factory=list)

    def pop(self) -> Group:
        """The next group to lease."""
        group = self.pending.popleft()
        self.num_pending -= len(group)
        return group

    def give_back(self, group: Group) -> None:
        """A group to lease again, before the others."""
        self.pending.appendleft(group)
        self.num_pending += len(group)


class Pool:
    """Ledger, fleet and the orders under way. Each method is an event and gives the commands that follow from it."""

    def __init__(self, settings: PoolSettings, now: float) -> None:
        self.settings = settings
        self.ledger = Ledger()
        self.fleet = Fleet(settings.num_samplers, settings.patience, now)
        self.ignored: Counter[str] = Counter()
        """Answers that did not count, by reason."""
        self._orders: dict[int, Progress] = {}
        self._taken: dict[int, SampleBatch] = {}
        self._next_lease = 0
        self._last_event = now

    def submit(self, order: SampleBatch, now: float) -> list[Command]:
        """Samples to draw."""
        self._keep_time(now)
        self.ledger.add((order.id, request.prompt.id, request.sample_id) for request in order.requests)
        self._orders[order.id] = Progress(order, deque(order.groups()), len(order.requests), len(order.requests))
        return self._go_on(now)

    def take(self, order_id: int) -> list[Any]:
        """The answers of an order that is complete; the pool keeps none of them."""
        progress = self._orders.pop(order_id)
        assert not progress.num_missing, f"order {order_id} still lacks {progress.num_missing} samples"
        self._taken[order_id] = progress.order
        return progress.answers

    def settle(self, order_id: int, rejected: Mapping[tuple[int, int], str]) -> None:
        """Say what became of a taken order's samples. rejected: reason by (prompt id, sample id)."""
        order = self._taken.pop(order_id)
        end = State.TRAINED if order.purpose == "train" else State.USED
        for request in order.requests:
            key = (order.id, request.prompt.id, request.sample_id)
            reason = rejected.get(key[1:])
            if reason is None:
                self.ledger.move([key], end)
            else:
                self.ledger.reject([key], reason)

    def placed(self, member_id: int, now: float) -> list[Command]:
        """The cluster found room for a sampler."""
        self._keep_time(now)
        self.fleet.placed(member_id, now)
        return self._go_on(now)

    def up(self, member_id: int, now: float) -> list[Command]:
        """A sampler is ready."""
        self._keep_time(now)
        self.fleet.up(member_id, now)
        return self._go_on(now)

    def heard(self, member_id: int, report: Report, now: float) -> list[Command]:
        """A report of a sampler."""
        self._keep_time(now)
        member = self.fleet.heard(member_id, report, now)
        complete: list[Command] = []
        for answer in report.answers:
            complete += self._accept(member, answer)
        return [*complete, *self._go_on(now)]

    def lost(self, member_id: int, why: str, now: float) -> list[Command]:
        """A sampler died."""
        self._keep_time(now)
        self._give_up(member_id, why, now)
        return self._go_on(now)

    def scale(self, num_samplers: int, now: float) -> list[Command]:
        """Another number of samplers from now on."""
        self._keep_time(now)
        self.fleet.size = num_samplers
        return self._go_on(now)

    def tick(self, now: float) -> list[Command]:
        """Time passed."""
        self._keep_time(now)
        commands: list[Command] = []
        needed = min((p.order.min_version for p in self._orders.values() if p.pending), default=-1)
        for member, why in [*self.fleet.overdue(now, needed)]:
            self._give_up(member.id, why, now)
            commands.append(Kill(member.id, why))
        commands += self._go_on(now)
        if failure := self.fleet.starved(now):
            commands.append(failure)
        return commands

    def outlook(self) -> dict[str, int]:
        """Samples of orders that nobody has taken yet: complete, under way, waiting."""
        rows = self._orders.values()
        return {
            "done": sum(len(progress.order.requests) - progress.num_missing for progress in rows),
            "leased": sum(member.num_rows for member in self.fleet.members.values()),
            "pending": sum(progress.num_pending for progress in rows),
        }

    def _keep_time(self, now: float) -> None:
        """Comes first in every event, so that nobody is judged by time in which the pool stood still."""
        paused, self._last_event = now - self._last_event, now
        if paused > self.settings.max_pause_s:
            self.fleet.skip(paused)

    def _go_on(self, now: float) -> list[Command]:
        """Comes last: the fleet first, since a sampler that was to leave may stay and take leases."""
        return [*self.fleet.adjust(now), *self._dispatch(now)]

    def _give_up(self, member_id: int, why: str, now: float) -> None:
        if member := self.fleet.remove(member_id, now, why):
            self._take_back(member)

    def _accept(self, member: Member | None, answer: Answer) -> Iterable[Command]:
        lease = self._lease(member, answer)
        if member is None or lease is None:
            self.ignored["late"] += 1
            return
        member.drop(lease)
        progress = self._orders[lease.order.id]
        if not self._is_fresh(lease, answer):
            self.ignored["stale"] += 1
            self.ledger.move(lease.keys, State.PENDING)
            progress.give_back(lease.requests)
            return
        self.ledger.move(lease.keys, State.DONE)
        self.fleet.answered(member)
        progress.answers.append(answer.rollouts)
        progress.num_missing -= len(lease.requests)
        if not progress.num_missing:
            yield Deliver(lease.order.id)

    def _lease(self, member: Member | None, answer: Answer) -> Lease | None:
        """The lease that an answer is for, if it still is that sampler's."""
        return None if member is None else member.leases.get(answer.lease_id)

    def _is_fresh(self, lease: Lease, answer: Answer) -> bool:
        """Whether none of its tokens is older than its order allows."""
        return answer.oldest_version >= lease.order.min_version

    def _take_back(self, member: Member) -> None:
        for lease in reversed(member.leases.values()):
            self.ledger.move(lease.keys, State.PENDING)
            self._orders[lease.order.id].give_back(lease.requests)

    def _dispatch(self, now: float) -> Iterable[Command]:
        """Lease what is pending, earlier steps first, each group to the sampler with the fewest tokens to draw.

        A sampler that has no room for a step's next group gets none of a later step: large groups would never fit. None
        gets more than its share of all that is left, so that those whose weights come a little later find theirs.
        """
        waiting = sorted((p for p in self._orders.values() if p.pending), key=lambda p: (p.order.step, p.order.id))
        free = self.fleet.ready
        if not waiting or not free:
            return
        left = sum(progress.num_pending for progress in waiting) + sum(member.num_rows for member in free)
        share = left // len(free)
        sent: dict[Member, list[Lease]] = {}
        for progress in waiting:
            able = [member for member in free if member.version >= progress.order.min_version]
            while progress.pending:
                most = min(self.settings.capacity - len(progress.pending[0]), share)
                with_room = [member for member in able if member.num_rows <= most or not member.num_rows]
                if not with_room:
                    free = [member for member in free if member.version < progress.order.min_version]
                    break
                member = min(with_room, key=_load)
                lease = Lease(self._next_lease, progress.order, progress.pop(), now + self.settings.lease_s)
                self._next_lease += 1
                self.ledger.move(lease.keys, State.LEASED)
                member.take(lease)
                sent.setdefault(member, []).append(lease)
        for member, leases in sent.items():
            yield Send(member.id, tuple(leases))


def _load(member: Member) -> int:
    return member.num_tokens
