"""Settings of the rollouts that cannot work are refused before anything starts."""

from typing import Any

import pytest
from pydantic import ValidationError

from rayrlhf.ppo.config import PPOConfig


def config(**changes: Any) -> PPOConfig:
    tree = {
        "run": {"name": "x"},
        "model": "m",
        "reward": {"source": {"kind": "reward_model", "model": "r"}},
        "data": {"train": ["p.jsonl"]},
    }
    return PPOConfig.model_validate(tree | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollouts": {"max_staleness": -1}}, "rollouts.max_staleness\n.*greater than or equal to 0"),
        (
            {"rollouts": {"lease_timeout_s": 2}, "sampling": {"max_completion_length": 4000}},
            r"lease_timeout_s 2 is shorter than a single response can take: 4000 tokens need 4 s .* set 600 or more",
        ),
        ({"rollouts": {"autoscale": {"min_workers": 3, "max_workers": 2}}}, "min_workers 3 exceeds max_workers 2"),
        (
            {"rollouts": {"autoscale": {"min_workers": 2, "max_workers": 4}}},
            "sampler.num_workers 1 is where rollouts.autoscale starts: it must lie between min_workers 2",
        ),
        ({"rollouts": {"on_update": "stop"}}, "on_update\n.*'continue' or 'finish'"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_a_run_reserves_one_sampler_and_takes_the_others_as_it_finds_them() -> None:
    many = config(sampler={"num_workers": 5})
    assert (many.roles["sampler"].num_workers, many.reserved_roles["sampler"].num_workers) == (5, 1)
    shared = config(sampler={"num_workers": 5}, placement={"colocate": [["sampler", "policy"]]})
    assert shared.reserved_roles["sampler"].num_workers == 5
