"""A sampler with a fake engine and a fake source of weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rayrlhf.engines import Completion, GenerationRequest, Sampling
from rayrlhf.types import Prompt, SampleRequest
from rayrlhf.weights.store import Published
from rayrlhf.workers.sampler import Sampler, assemble


class FakeEngine:
    """Answers a prompt of n tokens with n + 1 tokens of its version, and remembers what it loaded."""

    def __init__(self) -> None:
        self.loaded: list[tuple[dict[str, Any], int]] = []
        self.asked: list[GenerationRequest] = []

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Completion]:
        self.asked.extend(requests)
        version = self.loaded[-1][1]
        return [
            Completion((version + 100,) * (len(r.token_ids) + 1), (-0.5,) * (len(r.token_ids) + 1), finished=True)
            for r in requests
        ]

    def load_weights(self, update: dict[str, Any], version: int) -> None:
        self.loaded.append((update, version))


class FakeSource:
    """Always has one version more than the last time, and remembers how often it was asked."""

    def __init__(self, version: int = 0) -> None:
        self.version = version
        self.asked_for: list[int] = []

    def newest(self, min_version: int) -> Published:
        self.asked_for.append(min_version)
        self.version = max(self.version, min_version)
        return Published(self.version, [f"bucket of {self.version}"])


def requests(*prompts: tuple[int, ...]) -> list[SampleRequest]:
    return [SampleRequest(Prompt(10 + i, ids), i % 2, seed=1000 + i) for i, ids in enumerate(prompts)]


def test_weights_are_pulled_only_when_older_than_asked():
    engine, source = FakeEngine(), FakeSource()
    sampler = Sampler(engine, source)
    assert sampler.version == -1
    sampler.sync(0)
    assert source.asked_for == [0]
    assert sampler.sync(0) == 0.0
    assert source.asked_for == [0]
    sampler.sync(3)
    assert source.asked_for == [0, 3]
    sampler.sync(2)
    assert source.asked_for == [0, 3]
    assert engine.loaded == [({"buckets": ["bucket of 0"]}, 0), ({"buckets": ["bucket of 3"]}, 3)]


def test_a_sampler_that_joins_late_takes_the_newest_version_and_says_so():
    engine, source = FakeEngine(), FakeSource(version=7)
    report, rollouts = Sampler(engine, source).generate(requests((1, 2)), Sampling(), min_version=5)
    assert rollouts.versions.tolist() == [7]
    assert report.headers[0].version == 7
    assert [version for _, version in engine.loaded] == [7]


def test_a_failed_load_leaves_the_version_as_it_was():
    class Failing(FakeEngine):
        def load_weights(self, update: dict[str, Any], version: int) -> None:
            raise OSError("lost")

    sampler = Sampler(Failing(), FakeSource())
    with pytest.raises(OSError, match="lost"):
        sampler.sync(2)
    assert sampler.version == -1


def test_the_engine_gets_every_prompt_with_its_own_seed():
    engine = FakeEngine()
    report, rollouts = Sampler(engine, FakeSource()).generate(requests((1, 2), (3,)), Sampling(), min_version=0)
    assert engine.asked == [GenerationRequest((1, 2), 1000), GenerationRequest((3,), 1001)]
    assert report.tokens == 3 + 2
    assert report.headers == rollouts.headers()


def test_requests_and_completions_become_aligned_arrays():
    completions = [Completion((7, 8, 9), (-0.1, -0.2, -0.3), True), Completion((5,), (-0.4,), False)]
    rollouts = assemble(requests((1, 2), (3, 4, 6)), completions, version=4)
    assert rollouts.tokens.tolist() == [[1, 2, 7, 8, 9], [3, 4, 6, 5, 0]]
    np.testing.assert_allclose(rollouts.engine_logprobs, [[0, 0, -0.1, -0.2, -0.3], [0, 0, 0, -0.4, 0]])
    assert rollouts.response_mask.astype(int).tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 0]]
    assert rollouts.finished.tolist() == [True, False]
    assert rollouts.prompt_ids.tolist() == [10, 11]
    assert rollouts.sample_ids.tolist() == [0, 1]
    assert rollouts.versions.tolist() == [4, 4]
    assert (rollouts.tokens.dtype, rollouts.engine_logprobs.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(("num_requests", "num_completions"), [(2, 3), (3, 2), (3, 1), (1, 2)])
def test_as_many_completions_as_requests_are_needed(num_requests, num_completions):
    with pytest.raises(ValueError):
        assemble(requests(*[(1,)] * num_requests), [Completion((7,), (-0.1,), True)] * num_completions, version=0)


def test_no_requests_are_no_rollouts():
    assert len(assemble([], [], version=0)) == 0


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
