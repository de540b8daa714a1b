"""Each sign of trouble is said once, with the setting to look at; a healthy run is silent."""

import pytest

from rayrlhf.ppo.diagnostics import Diagnostics

HEALTHY = {
    "engine/logprob_gap_max": 1e-6,
    "policy/first_ratio_mean": 1.00001,
    "kl/sequence_mean": 0.2,
    "policy/entropy": 2.0,
    "length/mean": 40.0,
    "length/finished_share": 0.9,
    "reward/score_mean": 0.1,
    "reward/score_std": 1.0,
    "reward/length_correlation": 0.7,
    "policy/skipped_steps": 0.0,
}


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ({"engine/logprob_gap_max": 0.42}, ["disagree by 0.42", "sampler.engine.dtype"]),
        ({"policy/first_ratio_mean": 1.2}, ["ratio 1.2 and not 1", "sampling.temperature"]),
        ({"kl/sequence_mean": -3.0}, ["never negative", "sampling.top_k"]),
        ({"policy/entropy": 0.15}, ["from 2 to 0.15", "algorithm.entropy_coef"]),
        ({"length/mean": 90.0, "reward/length_correlation": 0.0}, ["from 40 to 90", "overlong_penalty"]),
        ({"length/mean": 19.0}, ["from 40 to 19", "missing_eos_penalty"]),
        ({"length/finished_share": 0.4}, ["60% of the responses", "max_completion_length"]),
        ({"reward/score_mean": 1.5, "length/mean": 60.0}, ["rose by 1.4", "length alone may explain it"]),
        ({"policy/skipped_steps": 1.0}, ["not finite", "learning rate"]),
    ],
)
def test_a_sign_is_said_once_with_the_setting_to_see(signs, words):
    diagnostics = Diagnostics(logprob_gap_limit=1e-4)
    assert diagnostics.warnings(HEALTHY) == []
    (line,) = diagnostics.warnings(HEALTHY | signs)
    assert all(word in line for word in words)
    assert diagnostics.warnings(HEALTHY | signs) == []


def test_the_samplers_rounding_in_the_first_ratio_is_no_sign():
    rounded = HEALTHY | {"policy/first_ratio_mean": 1.03}
    assert Diagnostics(logprob_gap_limit=0.5, first_ratio_limit=0.1).warnings(rounded) == []
    (line,) = Diagnostics(logprob_gap_limit=0.5).warnings(rounded)
    assert "ratio 1.03 and not 1" in line


def test_a_reward_that_rises_without_length_is_no_hacking():
    diagnostics = Diagnostics(logprob_gap_limit=1e-4)
    diagnostics.warnings(HEALTHY)
    assert diagnostics.warnings(HEALTHY | {"reward/score_mean": 3.0}) == []
    assert diagnostics.warnings(HEALTHY | {"reward/score_mean": 3.0, "length/mean": 30.0}) == []


def test_an_algorithm_without_some_figures_is_judged_by_the_others():
    diagnostics = Diagnostics(logprob_gap_limit=1e-4)
    assert diagnostics.warnings({"length/mean": 10.0, "length/finished_share": 1.0}) == []


def test_a_step_whose_responses_are_all_left_out_of_the_loss_has_no_entropy_that_fell():
    diagnostics = Diagnostics(logprob_gap_limit=1e-4)
    diagnostics.warnings(HEALTHY)
    assert diagnostics.warnings({name: value for name, value in HEALTHY.items() if "policy/" not in name}) == []
