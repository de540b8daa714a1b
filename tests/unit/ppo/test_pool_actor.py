"""Accepted groups reach the rewarder that scores them, before their batch is complete."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rayrlhf.engines import Completion, Sampling
from rayrlhf.pool.config import RolloutsConfig
from rayrlhf.pool.leases import Answer, Lease, Report, SampleBatch
from rayrlhf.ppo.actors import RunActors
from rayrlhf.ppo.pool_actor import RolloutPool, begin_scoring
from rayrlhf.rewards import RewardModelReward, RulesReward
from rayrlhf.types import Prompt, Rollouts, Sample
from rayrlhf.workers.sampler import assemble


class FakeHandle:
    """An actor handle that remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Rollouts]] = []
        self.call = SimpleNamespace(remote=self._call)

    def _call(self, method: str, *, rollouts: Rollouts) -> None:
        self.calls.append((method, rollouts))


def group(prompt_id: int) -> Rollouts:
    prompt = Prompt(prompt_id, np.array([1, 2]))
    samples = [Sample(prompt, sample_id, seed=0) for sample_id in range(2)]
    return assemble(samples, [Completion((3,), (-1.0,), True, (0,))] * 2)


@pytest.mark.parametrize(("prompt_id", "rank"), [(0, 0), (1, 1), (2, 2), (3, 0), (7, 1)])
def test_a_group_goes_to_the_rewarder_of_its_prompt_alone(prompt_id: int, rank: int) -> None:
    handles: list[Any] = [FakeHandle() for _ in range(3)]
    rollouts = group(prompt_id)
    begin_scoring(handles, rollouts)
    assert [handle.calls for handle in handles] == [[("begin", rollouts)] if r == rank else [] for r in range(3)]


def test_without_rewarders_nothing_is_sent() -> None:
    begin_scoring([], group(0))


class Link:
    """A sampler that answers one lease each time the test says so."""

    def __init__(self) -> None:
        self.held: list[Lease] = []
        self.num_answers = 0

    async def placed(self) -> None: ...

    async def ready(self) -> None: ...

    async def assign(self, leases: tuple[Lease, ...]) -> None:
        self.held += leases

    async def report(self, timeout_s: float) -> Report:
        await asyncio.sleep(0.01)
        if not self.held or not self.num_answers:
            return Report(0)
        self.num_answers -= 1
        lease = self.held.pop(0)
        return Report(0, (Answer(lease.id, 0, group(lease.samples[0].prompt.id)),))

    def kill(self) -> None: ...


def test_the_actor_sends_each_group_on_while_its_batch_is_still_sampled() -> None:
    async def scenario() -> None:
        link, rewarder = Link(), FakeHandle()
        settings = RolloutsConfig().pool(num_samplers=1, num_slots=8, start_s=10.0)
        plain: Any = RolloutPool.__ray_metadata__.modified_class  # type: ignore[attr-defined]
        actor = plain(settings, lambda member: link, RolloutsConfig())
        await actor.ready()
        await actor.score_early([rewarder])
        samples = tuple(Sample(Prompt(index, (1, 2)), number, seed=0) for index in range(2) for number in range(2))
        await actor.submit(SampleBatch(0, 0, samples, Sampling(), min_version=0))
        taking = asyncio.create_task(actor.take(0))
        link.num_answers = 1
        async with asyncio.timeout(10):
            while not rewarder.calls:
                await asyncio.sleep(0.01)
        ((method, rollouts),) = rewarder.calls
        assert (method, rollouts.prompt_ids.tolist(), taking.done()) == ("begin", [0, 0], False)
        link.num_answers = 1
        _, everything = await taking
        assert everything.keys == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert [call[1].prompt_ids[0] for call in rewarder.calls] == [0, 1]
        await actor.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("texts", [True, False])
def test_rewarders_are_told_to_the_pool_if_any_of_them_reads_texts(texts: bool) -> None:
    rules = RulesReward.model_validate({"rules": [{"kind": "length", "max": 20}]})
    source = rules if texts else RewardModelReward(model="m")
    told: list[Any] = []
    run = RunActors.__new__(RunActors)
    run.config = SimpleNamespace(timeouts=SimpleNamespace(start_s=1.0), reward=SimpleNamespace(source=source))  # type: ignore[assignment]
    run.groups = {"reward": SimpleNamespace(hosts=["rank 0", "rank 1"])}  # type: ignore[dict-item]
    run.pool = SimpleNamespace(score_early=SimpleNamespace(remote=told.append))
    run._building = {}
    assert run.wait_until_ready() == {}
    assert told == ([["rank 0", "rank 1"]] if texts else [])
