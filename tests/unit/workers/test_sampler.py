"""A sampler with a fake engine: when it loads weights, what it generates with which, and where its time goes."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from padded_arrays import mask_of, tokens_of

from rayrlhf.engines import Completion, GenerationRequest, Sampling
from rayrlhf.pool import goodput
from rayrlhf.pool.leases import Answer, Lease
from rayrlhf.types import Prompt, Sample
from rayrlhf.workers.sampler import Sampler, Weights, assemble


@dataclass
class FakeEngine:
    """Answers a prompt of n tokens with n tokens, each the version that generated it + 100."""

    version: int = -1
    running: dict[int, tuple[GenerationRequest, list[int]]] = field(default_factory=dict)
    begun: list[GenerationRequest] = field(default_factory=list)
    loaded: list[Any] = field(default_factory=list)

    def add(self, request_id: int, request: GenerationRequest, sampling: Sampling) -> None:
        self.running[request_id] = (request, [])
        self.begun.append(request)

    def step(self) -> list[tuple[int, Completion]]:
        for _, versions in self.running.values():
            versions.append(self.version)
        ended = [i for i, (request, versions) in self.running.items() if len(versions) == len(request.token_ids)]
        return [(i, completion(self.running.pop(i)[1])) for i in ended]

    def load_weights(self, update: dict[str, Any], version: int) -> int:
        self.loaded.append(update["buckets"])
        self.version = version
        return 1 if self.running else 0


def completion(versions: list[int]) -> Completion:
    return Completion(
        tuple(v + 100 for v in versions), (-0.5,) * len(versions), finished=True, versions=tuple(versions)
    )


class Clock:
    """Every look at it takes a second."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def samples(*prompts: tuple[int, ...]) -> tuple[Sample, ...]:
    return tuple(Sample(Prompt(10 + i, ids), i % 2, seed=1000 + i) for i, ids in enumerate(prompts))


def lease(number: int, *prompts: tuple[int, ...]) -> Lease:
    return Lease(number, 0, samples(*prompts), Sampling(), min_version=0, deadline=math.inf)


def weights(version: int) -> Weights:
    return Weights(version, [f"bucket of {version}"])


def steps(sampler: Sampler, count: int) -> list[Answer]:
    return [answer for _ in range(count) for answer in sampler.step()]


def test_weights_are_taken_between_two_steps_and_running_responses_go_on_with_them():
    engine = FakeEngine()
    sampler = Sampler(engine, "continue")
    sampler.offer(weights(0))
    sampler.add(lease(7, (1, 2, 3)))
    assert steps(sampler, 1) == []
    sampler.offer(weights(1))
    (answer,) = steps(sampler, 2)
    assert engine.loaded == [["bucket of 0"], ["bucket of 1"]]
    assert answer.rollouts.versions.tolist() == [0, 0, 0, 0, 1, 1]
    assert tokens_of(answer.rollouts).tolist() == [[1, 2, 3, 100, 101, 101]]
    assert (answer.lease_id, answer.oldest_version, sampler.version) == (7, 0, 1)


def test_running_responses_may_be_finished_with_the_old_weights_and_none_begins_until_then():
    engine = FakeEngine()
    sampler = Sampler(engine, "finish")
    sampler.offer(weights(0))
    sampler.add(lease(7, (1, 2, 3)))
    steps(sampler, 1)
    sampler.offer(weights(1))
    sampler.add(lease(8, (4,)))
    (old,) = steps(sampler, 2)
    assert sampler.version == 0 and len(engine.begun) == 1
    (new,) = steps(sampler, 1)
    assert (old.lease_id, old.rollouts.versions[3:].tolist()) == (7, [0, 0, 0])
    assert (new.lease_id, new.rollouts.versions[1:].tolist()) == (8, [1])


def test_of_two_versions_that_wait_only_the_newer_is_loaded():
    engine = FakeEngine()
    sampler = Sampler(engine, "continue")
    sampler.offer(weights(3))
    sampler.offer(weights(4))
    assert steps(sampler, 1) == [] and not sampler.has_work
    assert engine.loaded == [["bucket of 4"]]


def test_a_lease_is_answered_when_its_last_response_has_ended():
    sampler = Sampler(FakeEngine(), "continue")
    sampler.offer(weights(0))
    sampler.add(lease(1, (1,), (2, 3, 4)))
    sampler.add(lease(2, (5, 6)))
    assert [answer.lease_id for answer in steps(sampler, 2)] == [2]
    (answer,) = steps(sampler, 1)
    assert answer.rollouts.prompt_ids.tolist() == [10, 11]
    assert answer.rollouts.response_lengths.tolist() == [1, 3]
    assert sampler.tokens == 6 and sampler.num_running == 0


def test_the_engine_gets_every_prompt_with_its_own_seed():
    engine = FakeEngine()
    sampler = Sampler(engine, "continue")
    sampler.add(lease(1, (1, 2), (3,)))
    steps(sampler, 1)
    assert engine.begun == [GenerationRequest((1, 2), 1000), GenerationRequest((3,), 1001)]


def test_every_second_belongs_to_what_the_sampler_did():
    clock = Clock()
    sampler = Sampler(FakeEngine(), "continue", clock)
    began = clock.now
    sampler.rest(for_weights=False)
    sampler.offer(weights(0))
    sampler.add(lease(1, (1, 2, 3)))
    steps(sampler, 1)
    sampler.offer(weights(1))
    steps(sampler, 2)
    sampler.rest(for_weights=False)
    seconds = sampler.watch.seconds(clock.now)
    assert sum(seconds.values()) == clock.now - began
    assert {name for name, spent in seconds.items() if spent} == {
        goodput.WAIT_FOR_WEIGHTS,
        goodput.LOAD_WEIGHTS,
        goodput.GENERATE,
        goodput.REDONE_PREFILL,
    }


def test_requests_and_completions_become_aligned_arrays():
    completions = [Completion((7, 8, 9), (-0.1, -0.2, -0.3), True, (4, 4, 5)), Completion((5,), (-0.4,), False, (4,))]
    rollouts = assemble(samples((1, 2), (3, 4, 6)), completions)
    assert tokens_of(rollouts).tolist() == [[1, 2, 7, 8, 9], [3, 4, 6, 5, 0]]
    np.testing.assert_allclose(
        rollouts.padded(rollouts.engine_logprobs), [[0, 0, -0.1, -0.2, -0.3], [0, 0, 0, -0.4, 0]]
    )
    assert mask_of(rollouts).astype(int).tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 0]]
    assert rollouts.finished.tolist() == [True, False]
    assert rollouts.prompt_ids.tolist() == [10, 11]
    assert rollouts.sample_ids.tolist() == [0, 1]
    assert rollouts.padded(rollouts.versions).tolist() == [[0, 0, 4, 4, 5], [0, 0, 0, 4, 0]]
    assert (rollouts.tokens.dtype, rollouts.engine_logprobs.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(("num_requests", "num_completions"), [(2, 3), (3, 2), (3, 1), (1, 2)])
def test_as_many_completions_as_requests_are_needed(num_requests, num_completions):
    with pytest.raises(AssertionError, match="one completion"):
        assemble(samples(*[(1,)] * num_requests), [Completion((7,), (-0.1,), True, (0,))] * num_completions)


def test_no_requests_are_no_rollouts():
    assert len(assemble([], [])) == 0


@pytest.mark.parametrize(
    ("sampling", "comparable"),
    [
        (Sampling(), True),
        (Sampling(temperature=0.7), True),
        (Sampling(temperature=0), False),
        (Sampling(top_k=10), True),
        (Sampling(top_p=0.9, temperature=0.7), False),
        (Sampling(repetition_penalty=1.1), False),
    ],
)
def test_logprobs_compare_only_where_engine_and_learner_mean_the_same(sampling, comparable):
    assert sampling.has_comparable_logprobs is comparable
