"""Each preset computes what the project computes: advantages, returns, losses and their gradients. And so do
algorithms without a critic with OpenRLHF's settings. In float64 to 1e-9, so that nothing is rounded to float32."""

from functools import partial

import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st
from ours import ESTIMATORS, ours, quantities, ragged, relative_error

from rayrlhf.algorithms import PPO
from rayrlhf.algorithms.base import Algorithm
from rayrlhf.algorithms.presets import PRESETS

LENGTHS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=2, max_size=8)


@pytest.mark.parametrize("name", list(PRESETS))
@given(lengths=LENGTHS, padding=st.integers(0, 3), seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_a_preset_equals_its_project(name, lengths, padding, seed):
    compare(PPO(**PRESETS[name]["algorithm"]), references.PROJECTS[name], ragged(lengths, seed), padding)


@given(
    lengths=LENGTHS.filter(lambda pairs: max(n for _, n in pairs) > 1),
    padding=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)
def test_deepspeed_chat_with_eos_for_padding(lengths, padding, seed):
    algorithm = PPO(**PRESETS["deepspeed_chat"]["algorithm"], eos_is_pad=True)
    compare(algorithm, references.deepspeed_chat_eos_is_pad, ragged(lengths, seed), padding)


@pytest.mark.parametrize("kind", list(ESTIMATORS))
@given(
    lengths=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=4, max_size=12),
    per_group=st.integers(2, 4),
    seed=st.integers(0, 10**6),
)
def test_algorithms_without_a_critic_equal_openrlhfs(kind, lengths, per_group, seed):
    project = partial(references.openrlhf_estimator, kind, beta=0.3)
    compare(ESTIMATORS[kind], project, ragged(lengths, seed, per_group))


@given(lengths=LENGTHS, gamma=st.floats(0.0, 1.0), seed=st.integers(0, 10**6))
def test_openrlhfs_reinforce_discounts(lengths, gamma, seed):
    algorithm = ESTIMATORS["reinforce"].model_copy(update={"gamma": gamma})
    compare(
        algorithm, partial(references.openrlhf_estimator, "reinforce", beta=0.3, gamma=gamma), ragged(lengths, seed)
    )


def compare(algorithm: Algorithm, project: references.Project, data: references.Ragged, padding: int = 0) -> None:
    wanted = quantities(project, data)
    found = quantities(partial(ours, algorithm, padding=padding), data)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert relative_error(found[name], wanted[name]) <= 1e-9, name
