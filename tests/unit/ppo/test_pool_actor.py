"""Accepted groups reach the rewarder that scores them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rayrlhf.engines import Completion
from rayrlhf.ppo.pool_actor import begin_scoring
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
