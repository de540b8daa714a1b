"""What must be true of the rollout pool, kept in a second set of books that shares no code with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rayrlhf.pool.leases import Lease, Report, SampleBatch
from rayrlhf.pool.ledger import Key
from rayrlhf.pool.member import Member, Phase
from rayrlhf.pool.pool import Pool, PoolSettings


class BrokenRule(AssertionError):
    """The pool did what it must never do, or did not do what it must."""


def require(holds: bool, rule: str) -> None:
    """Raise BrokenRule unless it holds."""
    if not holds:
        raise BrokenRule(rule)


@dataclass(frozen=True)
class Sampled:
    """One response of a fake sampler: its sample, sampler, lease and weights."""

    key: Key
    member: int
    lease_id: int
    versions: tuple[int, ...]
    """Of its tokens, from the first to the last."""


@dataclass
class Entry:
    """A sampler, as far as the pool has been told."""

    stage: str = "placing"  # then starting, up
    version: int = -1
    made: int = -1
    """Number of the newest report that arrived."""
    has_answered: bool = False
    quiet_since: float = 0.0
    """Its last sign of life, moved on by the time that nobody is to blame for."""
    leased_at: dict[int, float] = field(default_factory=dict)
    """When each of its leases was granted, by id."""


class Books:
    """Follows every event and command and raises BrokenRule as soon as a rule does not hold."""

    def __init__(self, size: int, settings: PoolSettings) -> None:
        self.size = size
        self.members: dict[int, Entry] = {}
        self.batches: dict[int, SampleBatch] = {}
        self.missing: dict[int, set[Key]] = {}
        self.accepted: dict[int, list[Sampled]] = {}
        self.leases: dict[int, tuple[int, Lease]] = {}
        """Member and lease by lease id, as long as the lease is held."""
        self.ends: Counter[str] = Counter()
        self.num_submitted = 0
        self._settings = settings
        self._patience = settings.patience
        self._to_announce: set[Sampled] = set()
        """Accepted, and not announced yet."""
        self._held: dict[Key, int] = {}
        self._used_ids: set[int] = set()
        self._failures, self._first_of_row, self._num_started = 0, 0, 0
        self._now, self._area, self._dead, self._room_at = 0.0, 0.0, 0, 0.0

    # Events, told before the pool hears of them.

    def pass_time(self, now: float, excused: float = 0.0) -> None:
        """Add up the seconds of samplers and of lost ones that nobody replaced yet. excused: nobody's fault."""
        self._area += (len(self.members) + self._dead) * (now - self._now)
        self._now = now
        if excused:
            self._room_at += excused
            for entry in self.members.values():
                entry.quiet_since += excused
                entry.leased_at = {lease_id: at + excused for lease_id, at in entry.leased_at.items()}

    def submitted(self, batch: SampleBatch) -> None:
        keys = {(batch.id, sample.prompt.id, sample.sample_id) for sample in batch.samples}
        self.batches[batch.id], self.missing[batch.id], self.accepted[batch.id] = batch, keys, []
        self.num_submitted += len(keys)

    def moved(self, member_id: int, stage: str) -> None:
        entry = self.members.get(member_id)
        if entry is not None and entry.stage != "up":
            entry.stage, entry.quiet_since = stage, self._now

    def reported(self, member_id: int, made: int, report: Report) -> set[int]:
        """Returns the batches that this completes."""
        entry = self.members.get(member_id)
        if entry is None or entry.stage != "up":
            return set()
        entry.quiet_since = self._now
        if made >= entry.made:
            entry.made, entry.version = made, report.version
        complete = set()
        for answer in report.answers:
            if self.leases.get(answer.lease_id, (None, None))[0] != member_id:
                continue
            _, lease = self.leases[answer.lease_id]
            self._free(answer.lease_id)
            if min(min(sampled.versions) for sampled in answer.rollouts) < self.batches[lease.batch_id].min_version:
                continue
            entry.has_answered, self._failures = True, 0
            self.accepted[lease.batch_id] += answer.rollouts
            self._to_announce.update(answer.rollouts)
            missing = self.missing[lease.batch_id]
            missing -= set(lease.keys)
            if not missing:
                complete.add(lease.batch_id)
        return complete

    def gone(self, member_id: int, was_lost: bool) -> None:
        entry = self.members.pop(member_id, None)
        if entry is None:
            return
        for lease_id in [lease_id for lease_id, (holder, _) in self.leases.items() if holder == member_id]:
            require(was_lost, f"sampler {member_id} was sent away with lease {lease_id}")
            self._free(lease_id)
        if was_lost:
            self._dead += 1
            if not entry.has_answered and member_id >= self._first_of_row:
                self._failures += 1
                self._first_of_row = self._num_started

    # Commands.

    def started(self, member_id: int) -> None:
        require(member_id == self._num_started, f"sampler {member_id} is not the next number")
        self._num_started += 1
        self.members[member_id] = Entry(quiet_since=self._now)

    def sent(self, member_id: int, leases: tuple[Lease, ...], member: Member | None) -> None:
        require(member is not None, f"sampler {member_id} is not in the fleet and got leases")
        require(member.phase is Phase.READY, f"sampler {member_id} is {member.phase} and got leases")
        entry = self.members[member_id]
        for lease in leases:
            about = f"lease {lease.id} to sampler {member_id}"
            batch = self.batches[lease.batch_id]
            require(lease.id not in self._used_ids, f"{about}: its id was used before")
            require(
                entry.version >= max(batch.min_version, 0),
                f"{about}: version {entry.version} is too old for {batch.min_version}",
            )
            require(
                (lease.sampling, lease.min_version) == (batch.sampling, batch.min_version),
                f"{about}: its settings are not those of batch {batch.id}",
            )
            require(len({sample.prompt.id for sample in lease.samples}) == 1, f"{about}: not one prompt's samples")
            for key in lease.keys:
                require(key not in self._held, f"{about}: {key} is held under lease {self._held.get(key)}")
                require(key in self.missing[lease.batch_id], f"{about}: {key} was answered before")
                self._held[key] = lease.id
            self._used_ids.add(lease.id)
            self.leases[lease.id] = member_id, lease
            entry.leased_at[lease.id] = self._now
        sizes = [len(lease.samples) for holder, lease in self.leases.values() if holder == member_id]
        require(len(sizes) == 1 or sum(sizes) <= self._settings.capacity, f"sampler {member_id} holds {sizes}")

    def killed(self, member_id: int, why: str) -> None:
        entry = self.members[member_id]
        quiet = self._now - entry.quiet_since
        deserved = {
            "was scaled down": entry.stage != "up",
            "was not ready": entry.stage == "starting" and quiet > self._patience.start_s,
            "sent no report": entry.stage == "up" and quiet > self._patience.silence_s,
            "held a lease": self._now - min(entry.leased_at.values(), default=self._now) > self._settings.lease_s,
            "its weights": entry.stage == "up" and not entry.leased_at,
        }
        require(
            any(reason in why and holds for reason, holds in deserved.items()), f"sampler {member_id} was killed: {why}"
        )
        self.gone(member_id, was_lost="was scaled down" not in why)

    def deserves(self, failure: str) -> bool:
        """Whether the run had to be ended with this message."""
        if "in a row" in failure:
            return self._failures >= self._patience.max_failures
        return self._now - self._room_at > self._patience.start_s

    def announced(self, batch_id: int, rollouts: tuple[Sampled, ...]) -> None:
        for sampled in rollouts:
            require(sampled.key[0] == batch_id, f"{sampled} was announced for batch {batch_id}")
            require(sampled in self._to_announce, f"{sampled} was announced twice, or without being accepted")
            self._to_announce.remove(sampled)

    def delivered(self, batch_id: int) -> None:
        late = [sampled for sampled in self._to_announce if sampled.key[0] == batch_id]
        require(not late, f"batch {batch_id} was delivered before {late} were announced")

    def taken(self, batch_id: int, groups: list[tuple[Sampled, ...]]) -> list[Sampled]:
        batch = self.batches[batch_id]
        responses = [sampled for group in groups for sampled in group]
        keys = sorted(sampled.key for sampled in responses)
        expected = sorted((batch_id, sample.prompt.id, sample.sample_id) for sample in batch.samples)
        require(keys == expected, f"batch {batch_id} is not its samples, each once: {keys}")
        for sampled in responses:
            require(min(sampled.versions) >= batch.min_version, f"{sampled} is too old for {batch.min_version}")
        require(
            Counter(responses) == Counter(self.accepted.pop(batch_id)),
            f"batch {batch_id} has answers that do not count",
        )
        return responses

    def settled(self, batch_id: int, rejected: Mapping[tuple[int, int], str]) -> None:
        batch = self.batches.pop(batch_id)
        self.ends["rejected"] += len(rejected)
        self.ends["trained" if batch.purpose == "train" else "used"] += len(batch.samples) - len(rejected)
        del self.missing[batch_id]

    # After every event.

    def check(self, pool: Pool) -> None:
        """Compare with the pool's own numbers. Words are made only for a broken rule: this runs 10⁶ times."""
        if self._to_announce:
            raise BrokenRule(f"not announced at once: {self._to_announce}")
        members = pool.fleet.members
        if members.keys() != self.members.keys():
            raise BrokenRule(f"samplers are {set(self.members)}, not {set(members)}")
        staying = sum(member.phase is not Phase.LEAVING for member in members.values())
        require(staying <= self.size, f"{staying} samplers stay where {self.size} were requested")
        self._dead = min(self._dead, self.size - staying)
        if not members or any(entry.stage != "placing" for entry in self.members.values()):
            self._room_at = self._now
        counts = pool.ledger.counts
        num_open = sum(map(len, self.missing.values()))
        num_ended = sum(self.ends.values())
        expected = {
            "leased": len(self._held),
            "pending": num_open - len(self._held),
            "done": self.num_submitted - num_ended - num_open,
            **{end: self.ends[end] for end in ("trained", "used", "rejected")},
        }
        if counts != expected:
            raise BrokenRule(f"the ledger says {counts}, the books {expected}")

    def check_account(self, account: Mapping[str, float]) -> None:
        """The seconds of all samplers, when none is left."""
        total = sum(account.values())
        require(abs(total - self._area) <= 0.01 * self._area, f"{total:.2f} s of {self._area:.2f} s: {dict(account)}")
        require(min(account.values(), default=0) > -1e-6, f"negative seconds: {dict(account)}")

    def _free(self, lease_id: int) -> None:
        member_id, lease = self.leases.pop(lease_id)
        if member_id in self.members:
            del self.members[member_id].leased_at[lease_id]
        for key in lease.keys:
            del self._held[key]
