"""PPO's credit assignment by hand, its KL controller, and losses that no micro-batching can change."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from padded_arrays import mask_of, padded_batch

from rayrlhf.algorithms import PPO, ScoredRollouts
from rayrlhf.config import ConfigError, parse_config

# Two ragged responses: prompts of 2 and 1 tokens, responses of 2 and 1 tokens; index t speaks about token t.
LENGTHS = [(2, 2), (1, 1)]
OLD = np.array([[0, 0, -1.0, -2.0], [0, -0.5, 0, 0]], dtype=np.float32)
REF = np.array([[0, 0, -1.5, -1.0], [0, -1.5, 0, 0]], dtype=np.float32)
VALUES = np.array([[0, 0, 0.5, 1.0], [0, -1.0, 0, 0]], dtype=np.float32)
SCORES = np.array([3.0, -1.0], dtype=np.float32)
PLAIN = PPO(gamma=1.0, lam=1.0, whiten_advantages=False)


def values_of_states(values):
    """[B, T] values before each token → [B, T + 1], with something after the last that PPO must not read."""
    return np.pad(values, ((0, 0), (0, 1)), constant_values=77.0)


def credit(algorithm, rollouts, scores, ref_logprobs, old_logprobs, values, kl_coef):
    judged = ScoredRollouts(rollouts, scores, old_logprobs, 8, ref_logprobs, values_of_states(values))
    batch, metrics = algorithm.assign_credit(judged, kl_coef)
    return padded_batch(batch), metrics


def test_credit_of_two_ragged_responses_by_hand(make_rollouts):
    rollouts = make_rollouts(LENGTHS)
    # log ratios (.5, −1) and (1); with coefficient .1 rewards (−.05, .1 + 3) and (−.1 − 1)
    batch, metrics = credit(PLAIN, rollouts, SCORES, REF, OLD, VALUES, kl_coef=0.1)
    np.testing.assert_allclose(batch.returns[:, :-1], [[0, 0, 3.05, 3.1], [0, -1.1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(batch.advantages, [[0, 0, 2.55, 2.1], [0, -0.1, 0, 0]], atol=1e-6)
    assert metrics["reward/score_mean"] == pytest.approx(1.0)
    assert metrics["reward/with_kl_mean"] == pytest.approx((3.05 - 1.1) / 2)
    assert metrics["kl/sequence_mean"] == pytest.approx((-0.5 + 1.0) / 2)
    assert metrics["kl/token_mean"] == pytest.approx(0.5 / 3)
    assert metrics["kl/coef"] == 0.1
    assert metrics["length/mean"] == 1.5


def test_the_score_stands_on_the_last_response_token_alone(make_rollouts):
    batch, _ = credit(
        PLAIN.model_copy(update={"gamma": 0.0, "lam": 0.0}),
        make_rollouts(LENGTHS),
        SCORES,
        OLD,
        OLD,
        np.zeros_like(VALUES),
        kl_coef=0.1,
    )
    np.testing.assert_allclose(batch.returns[:, :-1], [[0, 0, 0, 3], [0, -1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(("estimator", "first_token"), [("k1", 0.5), ("k2", 0.125), ("k3", np.exp(-0.5) - 0.5)])
def test_the_kl_penalty_uses_the_named_estimator(make_rollouts, estimator, first_token):
    algorithm = PLAIN.model_copy(update={"kl_estimator": estimator, "gamma": 0.0})
    batch, _ = credit(algorithm, make_rollouts(LENGTHS), SCORES, REF, OLD, np.zeros_like(VALUES), kl_coef=1.0)
    assert batch.returns[0, 2] == pytest.approx(-first_token, rel=1e-5)


def test_a_response_without_eos_pays_the_missing_eos_penalty(make_rollouts):
    rollouts = make_rollouts(LENGTHS, finished=[True, False])
    zeros = np.zeros_like(VALUES)
    with_penalty = PLAIN.model_copy(update={"missing_eos_penalty": 2.0})
    without, _ = credit(PLAIN, rollouts, SCORES, OLD, OLD, zeros, kl_coef=0.0)
    penalized, metrics = credit(with_penalty, rollouts, SCORES, OLD, OLD, zeros, kl_coef=0.0)
    np.testing.assert_allclose(without.returns[:, :-1], [[0, 0, 3, 3], [0, -1, 0, 0]])
    np.testing.assert_allclose(penalized.returns[:, :-1], [[0, 0, 3, 3], [0, -3, 0, 0]])
    assert penalized.returns.dtype == np.float32
    assert metrics["reward/score_mean"] == pytest.approx(1.0)  # the reward model's own number
    assert metrics["length/finished_share"] == 0.5


def test_advantages_are_whitened_over_the_whole_step(make_rollouts):
    algorithm = PPO(whiten_advantages=True)
    batch, _ = credit(algorithm, make_rollouts([(1, 5), (4, 2), (2, 8)]), *random_credit(3, 10), kl_coef=0.1)
    kept = batch.advantages[mask_of(batch.rollouts)]
    assert kept.mean() == pytest.approx(0, abs=1e-6)
    assert kept.var(ddof=1) == pytest.approx(1, abs=1e-5)
    assert (batch.advantages[~mask_of(batch.rollouts)] == 0).all()


def test_padding_never_changes_the_credit(make_rollouts):
    lengths = [(2, 3), (1, 6)]
    rollouts = make_rollouts(lengths)
    arrays = random_credit(2, 7)
    padded = [arrays[0], *(np.pad(array, ((0, 0), (0, 4))) for array in arrays[1:])]
    first, first_metrics = credit(PPO(), rollouts, *arrays, kl_coef=0.1)
    second, second_metrics = credit(PPO(), rollouts, *padded, kl_coef=0.1)
    np.testing.assert_allclose(second.advantages, first.advantages, atol=1e-6)
    np.testing.assert_allclose(second.returns, first.returns, atol=1e-6)
    assert second_metrics == pytest.approx(first_metrics, rel=1e-5)


def test_credit_leaves_its_inputs_as_they_were(make_rollouts):
    arrays = [array.copy() for array in (SCORES, REF, OLD, VALUES)]
    credit(PPO(missing_eos_penalty=1.0), make_rollouts(LENGTHS), *arrays, kl_coef=0.1)
    for before, after in zip((SCORES, REF, OLD, VALUES), arrays, strict=True):
        np.testing.assert_array_equal(after, before)


def test_credit_reads_arrays_that_the_object_store_made_read_only(make_rollouts):
    arrays = [array.copy() for array in (SCORES, REF, OLD, VALUES)]
    for array in arrays:
        array.flags.writeable = False
    batch, _ = credit(PLAIN, make_rollouts(LENGTHS), *arrays, kl_coef=0.1)
    assert np.isfinite(batch.advantages).all()


# the KL controller


def test_the_adaptive_coefficient_rises_above_the_target_and_falls_below_it():
    algorithm = PPO(kl_target=6.0, kl_horizon=1000)
    assert algorithm.next_kl_coef(0.1, kl=6.6, num_samples=100) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert algorithm.next_kl_coef(0.1, kl=5.4, num_samples=100) == pytest.approx(0.1 * (1 - 0.1 * 0.1))
    assert algorithm.next_kl_coef(0.1, kl=6.0, num_samples=100) == pytest.approx(0.1)


@given(st.floats(-1e6, 1e6), st.integers(1, 1000))
def test_the_adaptive_coefficient_moves_by_a_fifth_of_the_horizons_share_at_most(kl, num_samples):
    found = PPO(kl_target=6.0, kl_horizon=1000).next_kl_coef(0.1, kl, num_samples)
    bound = 0.2 * num_samples / 1000
    assert 0.1 * (1 - bound) - 1e-12 <= found <= 0.1 * (1 + bound) + 1e-12


@given(st.floats(-1e6, 1e6))
def test_without_a_target_the_coefficient_is_fixed(kl):
    assert PPO().next_kl_coef(0.07, kl, 128) == 0.07


def random_credit(rows: int, width: int) -> list[np.ndarray]:
    """Scores, reference log-probs, old log-probs, values."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=rows).astype(np.float32)
    return [scores, *(rng.normal(size=(rows, width)).astype(np.float32) for _ in range(3))]


def test_the_adaptive_coefficient_survives_a_kl_that_is_not_finite_and_a_short_horizon():
    ppo = PPO(kl_coef=0.1, kl_target=1.0, kl_horizon=10)
    assert ppo.next_kl_coef(0.1, float("nan"), 10) == 0.1
    assert ppo.next_kl_coef(0.1, 0.0, 10_000) > 0


def test_a_gap_in_the_loss_mask_is_credited_as_if_its_tokens_were_not_there(make_rollouts):
    whole, gapped = make_rollouts([(2, 5), (1, 3)]), make_rollouts([(2, 7), (1, 3)])
    mask = gapped.loss_mask.copy()
    mask[[4, 5]] = False  # a tool's output between two turns of the first row
    gapped = replace(gapped, loss_mask=mask)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=2).astype(np.float32)
    arrays = [rng.normal(size=(2, 7)).astype(np.float32) for _ in range(3)]
    wider = [np.insert(array, [4, 4], 50.0, axis=1) for array in arrays]  # what stands in the gap must not matter
    for array, narrow in zip(wider, arrays, strict=True):
        array[1, :7] = narrow[1]
    without, metrics = credit(PPO(), whole, scores, *arrays, kl_coef=0.1)
    found, found_metrics = credit(PPO(), gapped, scores, *wider, kl_coef=0.1)
    np.testing.assert_allclose(np.delete(found.advantages[0], [4, 5]), without.advantages[0], atol=1e-6)
    np.testing.assert_allclose(found.advantages[1][:7], without.advantages[1], atol=1e-6)
    assert (found.advantages[0][[4, 5]] == 0).all()
    assert found_metrics == pytest.approx(metrics, rel=1e-5)


def test_lambda_may_follow_the_length_and_the_critic_have_its_own(make_rollouts):
    rollouts = make_rollouts([(1, 40), (2, 10)])
    arrays = random_credit(2, 41)

    def assigned(**settings):
        return credit(PPO(whiten_advantages=False, **settings), rollouts, *arrays, kl_coef=0.0)[0]

    adaptive = assigned(length_adaptive_lam=0.05, critic_lam=1.0)
    long, short = assigned(lam=1 - 1 / (0.05 * 40)), assigned(lam=0.0)  # 0.05 · 10 < 1
    np.testing.assert_allclose(adaptive.advantages[0], long.advantages[0], atol=1e-5)
    np.testing.assert_allclose(adaptive.advantages[1], short.advantages[1], atol=1e-5)
    np.testing.assert_allclose(adaptive.returns, assigned(lam=1.0).returns, atol=1e-5)
    np.testing.assert_array_equal(assigned(length_adaptive_lam=0.05).advantages, adaptive.advantages)


def test_where_lam_follows_the_length_the_critic_learns_whole_returns_unless_it_is_told_otherwise(make_rollouts):
    rollouts = make_rollouts([(2, 4), (2, 30)])  # α · 4 tokens are less than 1: λ is 0
    rng = np.random.default_rng(0)
    zeros = np.zeros((2, 32), np.float32)
    values = rng.normal(size=(2, 33)).astype(np.float32)
    scored = ScoredRollouts(rollouts, np.array([3, 5], np.float32), zeros, 32, values=values)

    def returns(**settings) -> np.ndarray:
        algorithm = PPO(kl_coef=0.0, length_adaptive_lam=0.05, **settings)
        return rollouts.padded(algorithm.assign_credit(scored, 0.0)[0].returns)[0, 2:6]

    assert returns() == pytest.approx([3, 3, 3, 3])
    assert returns(critic_lam=0.0) == pytest.approx([*values[0, 3:6], 3])


@pytest.mark.parametrize("name", ["length_adaptive_lam", "critic_lam"])
def test_a_lambda_without_gae_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is a λ of GAE.*set advantage=gae, or {name}=null"):
        parse_config(PPO, {"advantage": "sequence", name: 0.5}, "here")
