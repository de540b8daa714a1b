"""The runner with sampler processes that the test plays itself, in real time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rayrlhf.engines import Sampling
from rayrlhf.pool.autoscale import Autoscale
from rayrlhf.pool.config import RolloutsConfig
from rayrlhf.pool.leases import Answer, Lease, Report, SampleBatch
from rayrlhf.pool.pool import Pool
from rayrlhf.pool.runner import LinkError, PoolError, Runner
from rayrlhf.types import Prompt, Sample

SOON_S = 10.0


class FakeLink:
    """A sampler process: answers every lease at once, unless told otherwise."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[Report | LinkError] = asyncio.Queue()
        self.held: list[Lease] = []
        self.holds = self.killed = False
        self.start_error: str | None = None
        self.has_place = asyncio.Event()
        self.has_place.set()

    async def placed(self) -> None:
        await self.has_place.wait()

    async def ready(self) -> None:
        if self.start_error:
            raise LinkError(self.start_error)

    async def assign(self, leases: tuple[Lease, ...]) -> None:
        self.held += leases
        if not self.holds:
            self.answer()

    def answer(self) -> None:
        answers = tuple(Answer(lease.id, 0, [sample.prompt.id for sample in lease.samples]) for lease in self.held)
        self.held.clear()
        self.news.put_nowait(Report(0, answers))

    async def report(self, timeout_s: float) -> Report:
        try:
            news = await asyncio.wait_for(self.news.get(), timeout_s)
        except TimeoutError:
            return Report(0)
        if isinstance(news, LinkError):
            raise news
        return news

    def kill(self) -> None:
        self.killed = True


def batch(number: int, size: int = 4) -> SampleBatch:
    samples = tuple(Sample(Prompt(index, (1, 2)), 0, seed=index) for index in range(size))
    return SampleBatch(number, number, samples, Sampling(max_completion_length=4), min_version=0)


def play(
    scenario: Callable[[Runner, Pool, list[FakeLink]], Coroutine[Any, Any, None]],
    num_samplers: int = 1,
    prepare: Callable[[int, FakeLink], None] = lambda member, link: None,
    autoscale: Autoscale | None = None,
    on_group: Callable[[int, Any], None] = lambda batch_id, rollouts: None,
    **settings: Any,
) -> list[str]:
    """Run a scenario against a runner; returns what the runner logged."""
    lines: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(RolloutsConfig(**settings).pool(num_samplers, num_slots=8, start_s=SOON_S), loop.time())
        links: list[FakeLink] = []

        def launch(member: int) -> FakeLink:
            link = FakeLink()
            prepare(member, link)
            links.append(link)
            return link

        runner = Runner(pool, launch, autoscale, lines.append, loop.time, on_group)
        try:
            await asyncio.wait_for(scenario(runner, pool, links), SOON_S)
        finally:
            runner.close()

    asyncio.run(main())
    return lines


def prompts(groups: list[list[int]]) -> list[int]:
    return sorted(prompt for group in groups for prompt in group)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_batch_is_delivered_when_all_its_samples_are_there() -> None:
    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        await runner.ready()
        await until(lambda: pool.fleet.ready and pool.fleet.ready[0].version == 0)
        runner.submit(batch(0))
        assert prompts(await runner.take(0)) == [0, 1, 2, 3]
        pool.settle(0, {(2, 0): "no score"})
        assert pool.ledger.counts["trained"] == 3 and pool.ledger.reasons == {"no score": 1}

    play(scenario)


def test_the_leases_of_a_sampler_that_dies_go_to_another_and_it_is_replaced() -> None:
    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        await until(lambda: len(pool.fleet.ready) == 2)
        links[0].holds = True
        runner.submit(batch(0))
        await until(lambda: links[0].held)
        links[0].news.put_nowait(LinkError("out of memory"))
        assert prompts(await runner.take(0)) == [0, 1, 2, 3]
        await until(lambda: len(links) == 3)
        assert links[0].killed and pool.fleet.num_lost == 1

    assert "sampler 0 failed: out of memory" in play(scenario, num_samplers=2)


def test_samplers_that_never_start_end_the_run_with_their_error() -> None:
    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        runner.submit(batch(0))
        with pytest.raises(PoolError, match=r"2 times in a row new samplers were lost .* no such model"):
            await runner.ready()
        runner.submit(batch(1))
        for number in (0, 1):
            with pytest.raises(PoolError, match="no such model"):
                await runner.take(number)

    def prepare(member: int, link: FakeLink) -> None:
        link.start_error = "no such model"

    play(scenario, prepare=prepare, max_failures=2)


def test_a_silent_sampler_is_replaced_and_its_process_ended() -> None:
    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        await runner.ready()

        async def hang(timeout_s: float) -> Report:
            await asyncio.Event().wait()
            raise AssertionError

        links[0].report = hang  # type: ignore[method-assign]
        await until(lambda: len(links) == 2 and pool.fleet.ready)
        assert links[0].killed

    (line,) = play(scenario, silence_timeout_s=1.5)
    assert line == "sampler 0 was stopped: it sent no report for rollouts.silence_timeout_s=1.5 s"


def test_a_fleet_is_resized_while_it_works() -> None:
    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        await runner.ready()
        runner.scale(3)
        await until(lambda: len(pool.fleet.ready) == 3)
        runner.scale(1)
        await until(lambda: sum(not link.killed for link in links) == 1)
        runner.submit(batch(0))
        assert len(await runner.take(0)) == 4

    play(scenario)


def test_learners_that_wait_get_another_sampler() -> None:
    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        await until(lambda: links and pool.fleet.ready)
        links[0].holds = True
        runner.submit(batch(0))
        waiting = asyncio.create_task(runner.take(0))
        await until(lambda: len(links) == 2)
        links[0].holds = False
        links[0].answer()
        await waiting

    lines = play(scenario, autoscale=Autoscale(max_workers=2, interval_s=0.3))
    assert lines[0].startswith("autoscale: the learners wait") and lines[0].endswith(": 2 samplers instead of 1")


def test_a_group_is_announced_as_soon_as_it_is_accepted_and_before_its_batch_is_complete() -> None:
    announced: list[tuple[int, list[int]]] = []

    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        await until(lambda: [member.version for member in pool.fleet.ready] == [0, 0])
        links[0].holds = True
        runner.submit(batch(5))
        await until(lambda: links[0].held and len(announced) == 2)
        assert pool.outlook() == {"done": 2, "leased": 2, "pending": 0}
        links[0].answer()
        groups = await runner.take(5)
        assert sorted(announced) == sorted((5, group) for group in groups)

    play(scenario, num_samplers=2, on_group=lambda batch_id, rollouts: announced.append((batch_id, rollouts)))


def test_a_hook_that_fails_is_logged_and_the_batch_is_delivered_all_the_same() -> None:
    def fail(batch_id: int, rollouts: Any) -> None:
        raise RuntimeError("no rewarder")

    async def scenario(runner: Runner, pool: Pool, links: list[FakeLink]) -> None:
        runner.submit(batch(5))
        assert prompts(await runner.take(5)) == [0, 1, 2, 3]

    lines = play(scenario, on_group=fail)
    assert lines == ["a group of batch 5 could not be announced: RuntimeError: no rewarder"] * 4
