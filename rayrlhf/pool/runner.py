"""The pool at work: real time, real sampler processes. Plain asyncio; what a sampler process is, a `Link` says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from rayrlhf.config import UserError
from rayrlhf.pool.autoscale import Autoscale, WaitShare
from rayrlhf.pool.fleet import Phase
from rayrlhf.pool.leases import Assignment, Command, Deliver, Fail, Kill, Report, SampleBatch, Send, Start, Stop
from rayrlhf.pool.pool import Pool

HEARTBEAT_S = 0.5
TICK_S = 0.1
ROOM_GRACE_S = 15.0
"""A sampler that has no place after this long is spoken of."""


class PoolError(UserError):
    """The pool cannot go on; the message says why and what to change."""


class LinkError(Exception):
    """A sampler process is gone, or its engine failed."""


class Link(Protocol):
    """One sampler process. Every method raises LinkError if that is gone."""

    async def placed(self) -> None:
        """Return once the cluster has room for it."""
        ...

    async def ready(self) -> None:
        """Return once its engine is loaded."""
        ...

    async def assign(self, assignments: tuple[Assignment, ...]) -> None:
        """Hand it leases."""
        ...

    async def report(self, timeout_s: float) -> Report:
        """Its news, as soon as there is something or after `timeout_s`."""
        ...

    def kill(self) -> None:
        """End the process, whatever state it is in, and give back what it held."""
        ...


class Runner:
    """Carries out what the pool's logic wants, and tells it what happens."""

    def __init__(
        self,
        pool: Pool,
        launch: Callable[[int], Link],
        autoscale: Autoscale | None = None,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._launch, self._autoscale, self._say, self._clock = pool, launch, autoscale, say, clock
        self._links: dict[int, Link] = {}
        self._orders: dict[int, asyncio.Future[None]] = {}
        self._is_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wait_share = WaitShare(clock())
        self._without_room: set[int] = set()
        self._failure: PoolError | None = None
        self._spawn(self._keep_time())

    async def ready(self) -> None:
        """Return once a sampler is ready, and every other one that has a place. Raises PoolError."""
        await asyncio.shield(self._is_ready)

    def submit(self, order: SampleBatch) -> None:
        """Have an order drawn."""
        self._orders[order.id] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            self._orders[order.id].set_exception(self._failure)
        self._execute(self._pool.submit(order, self._clock()))

    async def take(self, order_id: int) -> list[Any]:
        """The answers of an order, once all are there. Raises PoolError."""
        self._wait_share.begin(self._clock())
        try:
            await self._orders[order_id]
        finally:
            self._wait_share.end(self._clock())
        del self._orders[order_id]
        return self._pool.take(order_id)

    def links(self) -> Mapping[int, Link]:
        """The processes, by sampler."""
        return self._links

    def scale(self, num_samplers: int) -> None:
        """Another number of samplers from now on."""
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
                    self._spawn(self._attend(member, self._links[member]))
                case Send(member, leases):
                    assignments = tuple(Assignment(x.id, x.requests, x.order.sampling) for x in leases)
                    self._spawn(self._assign(member, assignments))
                case Stop(member):
                    self._links.pop(member).kill()
                case Kill(member, why):
                    self._say(f"sampler {member} is given up: {why}")
                    if link := self._links.pop(member, None):
                        link.kill()
                case Deliver(order):
                    if not self._orders[order].done():
                        self._orders[order].set_result(None)
                case Fail(message):
                    self._fail(PoolError(message))

    def _fail(self, failure: PoolError) -> None:
        """Nothing is delivered from now on."""
        self._failure = failure
        for waiting in [self._is_ready, *self._orders.values()]:
            if not waiting.done():
                waiting.set_exception(failure)

    async def _attend(self, member: int, link: Link) -> None:
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

    async def _assign(self, member: int, assignments: tuple[Assignment, ...]) -> None:
        try:
            if link := self._links.get(member):  # it may have been given up in the meantime
                await link.assign(assignments)
        except LinkError as error:
            self._lose(member, str(error))

    def _lose(self, member: int, why: str) -> None:
        if link := self._links.pop(member, None):
            self._say(f"sampler {member} is lost: {why}")
            link.kill()
            self._execute(self._pool.lost(member, why, self._clock()))

    async def _keep_time(self) -> None:
        while True:
            now = self._clock()
            self._execute(self._pool.tick(now))
            starting = any(member.phase is Phase.STARTING for member in self._pool.fleet.members.values())
            if self._pool.fleet.ready and not starting and not self._is_ready.done():
                self._is_ready.set_result(None)
            if self._autoscale is not None:
                self._rescale(self._autoscale, now)
            self._speak_of_room(now)
            await asyncio.sleep(TICK_S)

    def _speak_of_room(self, now: float) -> None:
        fleet = self._pool.fleet
        placing = {m.id for m in fleet.members.values() if m.phase is Phase.PLACING and now - m.since > ROOM_GRACE_S}
        if placing - self._without_room and fleet.ready:
            self._say(
                f"the cluster has room for {len(fleet.members) - len(placing)} of {fleet.size} samplers: the run goes "
                "on with these and takes the others as soon as there is room"
            )
            self._without_room = placing
        elif self._without_room and not placing:
            self._say(f"all {fleet.size} samplers have a place now")
            self._without_room = placing

    def _rescale(self, autoscale: Autoscale, now: float) -> None:
        share = self._wait_share.close(autoscale.interval_s, now)
        if share is None:
            return
        before = self._pool.fleet.size
        size = autoscale.decide(before, share, self._pool.outlook())
        if size != before:
            self._say(f"autoscale: the learners wait {share:.0%} of the time: {size} samplers instead of {before}")
            self.scale(size)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fail(PoolError(f"the rollout pool failed: {type(error).__name__}: {error}"))
