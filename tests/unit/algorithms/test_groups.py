"""Algorithms without a critic: what a response is compared with."""

from dataclasses import replace

import numpy as np
import pytest
from padded_arrays import mask_of
from pydantic import TypeAdapter

from rayrlhf.algorithms import (
    GRPO,
    PPO,
    RLOO,
    AnyAlgorithm,
    DrGRPO,
    ReinforcePP,
    ReinforcePPBaseline,
    ReMax,
    ScoredRollouts,
)
from rayrlhf.algorithms.base import Baselines, OverlongPenalty
from rayrlhf.algorithms.moments import RunningMoments

LENGTHS = [(2, 2), (2, 1), (1, 3), (1, 1), (1, 2)]
PROMPTS = [4, 4, 9, 9, 9]
SCORES = np.array([1.0, 3.0, 2.0, 5.0, 8.0], dtype=np.float32)


@pytest.fixture
def judged(make_rollouts) -> ScoredRollouts:
    """Two groups, of 2 and 3 responses; every token's log π_old − log π_ref is ½."""
    rollouts = make_rollouts(LENGTHS, prompt_ids=PROMPTS)
    old = np.where(mask_of(rollouts), -1.0, 0).astype(np.float32)
    reference = np.where(mask_of(rollouts), -1.5, 0).astype(np.float32)
    greedy = Baselines(np.array([1, 1, 2, 2, 2], dtype=np.float32), np.array([1, 1, 2, 2, 2]), np.ones(5, dtype=bool))
    return ScoredRollouts(rollouts, SCORES, old, 4, reference, baselines=greedy)


def of_responses(algorithm, judged, kl_coef=0.0) -> list[list[float]]:
    """The advantages of each response's tokens."""
    batch, _ = algorithm.assign_credit(judged, kl_coef)
    assert (batch.advantages[~batch.rollouts.loss_mask] == 0).all()
    padded = batch.rollouts.padded(batch.advantages)
    return [row[mask].tolist() for row, mask in zip(padded, mask_of(batch.rollouts), strict=True)]


def first(rows) -> list[float]:
    return [row[0] for row in rows]


def test_grpo_divides_the_distance_from_the_groups_mean_by_its_deviation(judged):
    found = of_responses(GRPO(std_epsilon=1e-9), judged)
    assert first(found) == pytest.approx([-(0.5**0.5), 0.5**0.5, -1.0, 0.0, 1.0], abs=1e-5)
    assert all(len(set(row)) == 1 for row in found)  # the same for all tokens of a response
    by_step = of_responses(GRPO(scale_advantages="batch", std_epsilon=1e-9), judged)
    assert first(by_step) == pytest.approx(np.array([-1, 1, -3, 0, 3]) / SCORES.std(ddof=1), abs=1e-5)


def test_dr_grpo_only_takes_the_groups_mean_off(judged):
    algorithm = DrGRPO()
    assert first(of_responses(algorithm, judged)) == pytest.approx([-1, 1, -3, 0, 3])
    assert (algorithm.aggregation, algorithm.needs_reference) == ("fixed_length", False)


def test_rloo_compares_with_the_mean_of_the_others_after_the_kl_penalty(judged):
    assert first(of_responses(RLOO(), judged)) == pytest.approx([-2, 2, 2 - 6.5, 5 - 5, 8 - 3.5])
    # With coefficient 1 a response pays ½ a token: rewards 0, 2.5, .5, 4.5, 7.
    assert first(of_responses(RLOO(), judged, 1.0)) == pytest.approx([-2.5, 2.5, 0.5 - 5.75, 4.5 - 3.75, 7 - 2.5])


def test_a_baseline_of_scores_leaves_the_kl_of_the_tokens_to_come_to_each_token(judged):
    found = of_responses(RLOO(baseline_of="score"), judged, 1.0)  # every token pays ½
    assert found[0] == pytest.approx([-2 - 1.0, -2 - 0.5])
    assert found[2] == pytest.approx([2 - 6.5 - 1.5, 2 - 6.5 - 1.0, 2 - 6.5 - 0.5])
    in_loss = [of_responses(GRPO(baseline_of=what), judged, 1.0) for what in ("score", "return")]
    assert first(in_loss[0]) == pytest.approx(first(in_loss[1]))


def test_a_response_alone_in_its_group_teaches_nothing(judged, make_rollouts):
    alone = ScoredRollouts(judged.rollouts.take(np.array([0])), SCORES[:1], judged.old_logprobs[:1], 4)
    for algorithm in (GRPO(), DrGRPO(), RLOO()):
        assert first(of_responses(algorithm, alone)) == [0.0]


def test_reinforce_pp_whitens_the_rewards_to_come(judged):
    found = np.concatenate(of_responses(ReinforcePP(), judged, 1.0))
    raw = np.concatenate([score - 0.5 * np.arange(n, 0, -1) for score, (_, n) in zip(SCORES, LENGTHS, strict=True)])
    np.testing.assert_allclose(found, (raw - raw.mean()) / raw.std(ddof=1), rtol=1e-5)


def test_reinforce_pp_with_baseline_takes_the_groups_mean_off_and_whitens(judged):
    found = np.concatenate(of_responses(ReinforcePPBaseline(), judged, 1.0))  # its KL is in the loss
    raw = np.repeat([-1.0, 1, -3, 0, 3], [n for _, n in LENGTHS])
    np.testing.assert_allclose(found, (raw - raw.mean()) / raw.std(ddof=1), rtol=1e-5)


def test_remax_takes_the_greedy_responses_score_off(judged):
    found = of_responses(ReMax(), judged, 1.0)
    assert found[0] == pytest.approx([1 - 1.0 - 1, 1 - 0.5 - 1])
    assert found[3] == pytest.approx([5 - 0.5 - 2])


def test_a_kl_penalty_in_the_loss_needs_the_references_log_probs_there_and_not_in_the_reward(judged):
    in_loss, metrics = GRPO(kl_in="loss").assign_credit(judged, 0.5)
    assert in_loss.kl_coef == 0.5
    np.testing.assert_array_equal(in_loss.rollouts.padded(in_loss.ref_logprobs), judged.ref_logprobs)
    assert metrics["reward/with_kl_mean"] == pytest.approx(SCORES.mean())
    in_reward, metrics = GRPO(kl_in="reward", kl_estimator="k1").assign_credit(judged, 0.5)
    assert in_reward.ref_logprobs is None
    assert metrics["reward/with_kl_mean"] == pytest.approx(SCORES.mean() - 0.5 * 0.5 * 9 / 5)


def test_scores_are_clipped_before_penalties(judged):
    algorithm = DrGRPO(score_clip=4.0, overlong_penalty=OverlongPenalty(buffer_tokens=2, factor=3.0))
    # Responses of 2, 1, 3, 1, 2 tokens of 4 at most: the third is 1 into a buffer of 2.
    np.testing.assert_allclose(algorithm.final_scores(judged), [1, 3, 2 - 1.5, 4, 4])


def test_running_moments_are_those_of_all_scores_so_far():
    rng = np.random.default_rng(0)
    parts = [rng.normal(5, 3, size).astype(np.float32) for size in (7, 1, 20)]
    moments = RunningMoments()
    for index, part in enumerate(parts):
        seen = np.concatenate(parts[: index + 1]).astype(np.float64)
        moments.update(part)
        assert moments.mean == pytest.approx(seen.mean())
        assert moments.deviation == pytest.approx(seen.std(ddof=1))


@pytest.mark.parametrize("scores", [[2.5, 2.5, 2.5, 2.5], [1.0]])
def test_equal_scores_have_a_deviation_that_can_be_divided_by(scores):
    moments = RunningMoments()
    moments.update(np.array(scores, np.float32))
    assert (np.array(scores) - moments.mean) / moments.deviation == pytest.approx(0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"score_clip": 2.5},
        {"missing_eos_penalty": 1.0},
        {"overlong_penalty": OverlongPenalty(buffer_tokens=3, factor=2.0)},
    ],
)
@pytest.mark.parametrize("moments", [(0.0, 1.0), (20.0, 3.0)])
def test_a_response_as_good_as_the_greedy_one_has_no_advantage_in_remax(judged, settings, moments):
    rollouts = replace(judged.rollouts, finished=np.array([True, False, True, False, False]))
    greedy = Baselines(SCORES, rollouts.response_lengths, rollouts.finished)
    same = replace(judged, rollouts=rollouts, baselines=greedy, moments=moments)
    assert np.abs(ReMax(kl_coef=0.0, **settings).assign_credit(same, 0.0)[0].advantages).max() < 1e-6


def test_normalized_scores_leave_the_raw_ones_in_the_metrics(judged):
    _, metrics = ReMax().assign_credit(replace(judged, moments=(3.0, 2.0)), 0.0)
    assert metrics["reward/score_mean"] == pytest.approx(SCORES.mean())
    assert metrics["reward/with_kl_mean"] == pytest.approx((SCORES.mean() - 3.0) / 2.0)


@pytest.mark.parametrize("algorithm", [GRPO(mask_truncated=True), ReMax(mask_truncated=True)])
def test_truncated_responses_are_compared_and_not_learned(judged, algorithm):
    finished = np.array([True, False, True, True, False])
    judged = replace(judged, rollouts=replace(judged.rollouts, finished=finished))
    batch, _ = algorithm.assign_credit(judged, 0.0)
    plain, _ = algorithm.model_copy(update={"mask_truncated": False}).assign_credit(judged, 0.0)
    rows = np.repeat(finished, judged.rollouts.lengths)
    np.testing.assert_array_equal(batch.advantages, np.where(rows, plain.advantages, 0))
    np.testing.assert_array_equal(batch.rollouts.loss_mask, judged.rollouts.loss_mask & rows)
    assert batch.size_of(np.arange(5)).num_tokens == sum(LENGTHS[row][1] for row in (0, 2, 3))


@pytest.mark.parametrize(
    ("value", "kind"), [("grpo", GRPO), ({"kind": "rloo"}, RLOO), ({"gamma": 0.9}, PPO), ({}, PPO)]
)
def test_an_algorithm_is_named_in_short_or_with_its_settings_and_is_ppo_without_a_name(value, kind):
    assert type(TypeAdapter(AnyAlgorithm).validate_python(value)) is kind
