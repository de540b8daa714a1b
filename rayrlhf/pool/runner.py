"""Runs the pool in real time, with asyncio and real sampler processes; what a process is, its `Link` decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from rayrlhf.config import UserError
from rayrlhf.pool.autoscale import Autoscale, WaitShare
from rayrlhf.pool.commands import Accept, Command, Deliver, Fail, Kill, Send, Start, Stop
from rayrlhf.pool.leases import Lease, Report, SampleBatch
from rayrlhf.pool.member import Phase
from rayrlhf.pool.pool import Pool

HEARTBEAT_S = 0.5
TICK_S = 0.1
LOG_UNPLACED_S = 15.0
"""Log samplers that are still unplaced after this long."""


class PoolError(UserError):
    """The pool cannot continue; the message says why and what to change."""


class LinkError(Exception):
    """A sampler process is gone, or its engine failed."""


class Link(Protocol):
    """One sampler process. Every method raises LinkError if the process is gone or its engine failed."""

    async def placed(self) -> None:
        """Wait until the cluster has placed it."""
        ...

    async def ready(self) -> None:
        """Wait until its engine is loaded."""
        ...

    async def assign(self, leases: tuple[Lease, ...]) -> None:
        """Send it leases."""
        ...

    async def report(self, timeout_s: float) -> Report:
        """Long-poll for the next report: it comes when something has changed, or after `timeout_s`."""
        ...

    def kill(self) -> None:
        """End the process, whatever state it is in, and free its resources."""
        ...


class Runner:
    """Carries out the commands of the pool's logic, and reports events to it.

    `on_group(batch id, rollouts)` is called once for every group that is accepted, before its batch is complete.
    """

    def __init__(
        self,
        pool: Pool,
        launch: Callable[[int], Link],
        autoscale: Autoscale | None = None,
        log: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        on_group: Callable[[int, Any], None] = lambda batch_id, rollouts: None,
    ) -> None:
        self._pool, self._launch, self._autoscale, self._log, self._clock = pool, launch, autoscale, log, clock
        self._on_group = on_group
        self._links: dict[int, Link] = {}
        self._complete: dict[int, asyncio.Future[None]] = {}  # by batch id
        self._is_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wait_share = WaitShare(clock())
        self._unplaced: set[int] = set()
        self._failure: PoolError | None = None
        self._spawn(self._watch_clock())

    async def ready(self) -> None:
        """Wait until every sampler that the cluster has placed is ready, and at least one. Raises PoolError."""
        await asyncio.shield(self._is_ready)

    def submit(self, batch: SampleBatch) -> None:
        """Have a batch generated."""
        self._complete[batch.id] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            self._complete[batch.id].set_exception(self._failure)
        self._execute(self._pool.submit(batch, self._clock()))

    async def take(self, batch_id: int) -> list[Any]:
        """The rollouts of a batch, group by group, once it is complete. Raises PoolError."""
        self._wait_share.begin(self._clock())
        try:
            await self._complete[batch_id]
        finally:
            self._wait_share.end(self._clock())
        del self._complete[batch_id]
        return self._pool.take(batch_id)

    def links(self) -> Mapping[int, Link]:
        """The processes, by sampler id."""
        return self._links

    def scale(self, num_samplers: int) -> None:
        """Change the number of samplers."""
        self._execute(self._pool.scale(num_samplers, self._clock()))

    def close(self) -> None:
        """End all samplers."""
        for task in self._tasks:
            task.cancel()
        for link in self._links.values():
            link.kill()
        self._links.clear()

    def _execute(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Start(member):
                    self._links[member] = self._launch(member)
                    self._spawn(self._follow(member, self._links[member]))
                case Send(member, leases):
                    self._spawn(self._assign(member, leases))
                case Stop(member):
                    self._links.pop(member).kill()
                case Kill(member, why):
                    self._log(f"sampler {member} was stopped: {why}")
                    if link := self._links.pop(member, None):
                        link.kill()
                case Accept(batch_id, rollouts):
                    self._announce(batch_id, rollouts)
                case Deliver(batch_id):
                    if not self._complete[batch_id].done():
                        self._complete[batch_id].set_result(None)
                case Fail(message):
                    self._fail(PoolError(message))

    def _announce(self, batch_id: int, rollouts: Any) -> None:
        """Call the hook. It only ever saves time, so its failure is logged and costs nothing else."""
        try:
            self._on_group(batch_id, rollouts)
        except Exception as error:
            self._log(f"a group of batch {batch_id} could not be announced: {type(error).__name__}: {error}")

    def _fail(self, failure: PoolError) -> None:
        """Nothing is delivered from now on."""
        self._failure = failure
        for waiting in [self._is_ready, *self._complete.values()]:
            if not waiting.done():
                waiting.set_exception(failure)

    async def _follow(self, member: int, link: Link) -> None:
        """Follow one sampler from its placement to its end."""
        pool = self._pool
        try:
            await link.placed()
            self._execute(pool.placed(member, self._clock()))
            await link.ready()
            self._execute(pool.up(member, self._clock()))
            while member in self._links:
                report = await link.report(HEARTBEAT_S)
                self._execute(pool.heard(member, report, self._clock()))
        except LinkError as error:
            self._lose(member, str(error))

    async def _assign(self, member: int, leases: tuple[Lease, ...]) -> None:
        try:
            if link := self._links.get(member):  # it may be gone by now
                await link.assign(leases)
        except LinkError as error:
            self._lose(member, str(error))

    def _lose(self, member: int, why: str) -> None:
        if link := self._links.pop(member, None):
            self._log(f"sampler {member} failed: {why}")
            link.kill()
            self._execute(self._pool.lost(member, why, self._clock()))

    async def _watch_clock(self) -> None:
        while True:
            now = self._clock()
            self._execute(self._pool.tick(now))
            starting = any(member.phase is Phase.STARTING for member in self._pool.fleet.members.values())
            if self._pool.fleet.ready and not starting and not self._is_ready.done():
                self._is_ready.set_result(None)
            if self._autoscale is not None:
                self._rescale(self._autoscale, now)
            self._log_unplaced(now)
            await asyncio.sleep(TICK_S)

    def _log_unplaced(self, now: float) -> None:
        fleet = self._pool.fleet
        placing = {m.id for m in fleet.members.values() if m.phase is Phase.PLACING and now - m.since > LOG_UNPLACED_S}
        if placing - self._unplaced and fleet.ready:
            self._log(
                f"the cluster has room for {len(fleet.members) - len(placing)} of {fleet.size} samplers: the run "
                "continues with these and adds the others as soon as there is room"
            )
            self._unplaced = placing
        elif self._unplaced and not placing:
            self._log(f"all {fleet.size} samplers are placed now")
            self._unplaced = placing

    def _rescale(self, autoscale: Autoscale, now: float) -> None:
        share = self._wait_share.close(autoscale.interval_s, now)
        if share is None:
            return
        before = self._pool.fleet.size
        size = autoscale.decide(before, share, self._pool.outlook())
        if size != before:
            self._log(f"autoscale: the learners wait {share:.0%} of the time: {size} samplers instead of {before}")
            self.scale(size)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fail(PoolError(f"the rollout pool failed: {type(error).__name__}: {error}"))
