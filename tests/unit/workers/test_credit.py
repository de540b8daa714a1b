"""The credit assigner puts shares of samplers and ranks together, and writes what was said."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from padded_arrays import mask_of

from rayrlhf.algorithms import GRPO, PPO, ReMax, ScoredRollouts
from rayrlhf.rewards import RewardError
from rayrlhf.rewards import Score as Scored
from rayrlhf.types import Rollouts, RowShare, unpad_rows
from rayrlhf.workers.credit import CreditAssigner, logprob_gap
from rayrlhf.workers.score_share import ScoreShare
from rayrlhf.workers.text_scorer import as_rollouts

PARTS = [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
"""(right, marker) of three responses."""


@pytest.fixture
def assigner(tiny_qwen2) -> CreditAssigner:
    return CreditAssigner(PPO(), tiny_qwen2, max_response_tokens=8, compare_logprobs=True)


def shares(values: np.ndarray, num_ranks: int, rollouts: Rollouts | None = None) -> list[RowShare]:
    """values: [B]; or [B, T] or [B, T + 1] of `rollouts`, of which each row's own entries travel."""
    ranks = [np.arange(len(values))[rank::num_ranks] for rank in range(num_ranks)]
    if rollouts is None:
        return [RowShare(rows, values[rows]) for rows in ranks]
    lengths = rollouts.lengths + values.shape[1] - rollouts.lengths.max()
    return [RowShare(rows, unpad_rows(values[rows], lengths[rows]), lengths[rows]) for rows in ranks]


def engine_shares(rollouts: Rollouts) -> list[RowShare]:
    """The sampler's log-probabilities, as if one learner had computed them."""
    return [RowShare(np.arange(len(rollouts)), rollouts.engine_logprobs, rollouts.lengths)]


def score_shares(values: np.ndarray, num_ranks: int) -> list[ScoreShare]:
    """Scores as the reward's ranks give them; NaN is a rejected rollout."""
    return [
        ScoreShare.of(
            share.rows, [Scored(None, "nothing to say") if np.isnan(v) else Scored(float(v)) for v in share.values], ()
        )
        for share in shares(values, num_ranks)
    ]


@pytest.mark.parametrize(("samplers", "ranks"), [(1, 1), (2, 1), (3, 2)])
def test_credit_does_not_depend_on_how_many_samplers_and_ranks_there_were(assigner, make_rollouts, samplers, ranks):
    made = make_rollouts([(2, 3), (1, 2), (3, 5), (2, 2), (1, 1), (4, 3)])
    per_part = len(made) // samplers
    parts = [made.take(np.arange(start, start + per_part)) for start in range(0, len(made), per_part)]
    rng = np.random.default_rng(0)
    scores = rng.normal(size=len(made)).astype(np.float32)
    reference, old, values = (
        np.where(mask_of(made), -rng.random(mask_of(made).shape), 0).astype(np.float32) for _ in range(3)
    )
    values = np.pad(values, ((0, 0), (0, 1)))
    arrays = {"ref_logprobs": reference, "old_logprobs": old, "values": values}
    given = {name: shares(array, ranks, made) for name, array in arrays.items()}
    outcome, batch = assigner.assign(
        0, 0.1, rollouts=Rollouts.concat(parts), scores=score_shares(scores, ranks), **given
    )
    metrics = outcome.metrics
    wanted, wanted_metrics = PPO().assign_credit(ScoredRollouts(made, scores, old, 8, reference, values), 0.1)
    np.testing.assert_array_equal(batch.advantages, wanted.advantages)
    np.testing.assert_array_equal(batch.rollouts.tokens, made.tokens)
    assert wanted_metrics.items() <= metrics.items()
    assert outcome.mean_kl == metrics["kl/sequence_mean"]
    gap = np.abs(made.padded(made.engine_logprobs) - old)[mask_of(made)]
    assert metrics["engine/logprob_gap_max"] == pytest.approx(gap.max())
    assert metrics["engine/version_min"] == metrics["engine/version_max"] == 0.0


def test_rollouts_are_written_as_text_with_their_scores(assigner, tokenizer, tmp_path):
    prompt, response = (
        tokenizer("안녕하세요?").input_ids,
        [*tokenizer("네, 반갑습니다.").input_ids, tokenizer.eos_token_id],
    )
    rollouts = as_rollouts([(prompt, response)])
    rollouts = replace(
        rollouts, prompt_ids=np.array([4]), sample_ids=np.array([1]), versions=np.full_like(rollouts.tokens, 6)
    )
    reference = np.where(mask_of(rollouts), -0.5, 0).astype(np.float32)
    given = {"ref_logprobs": shares(reference, 1, rollouts), "old_logprobs": shares(reference * 0, 1, rollouts)}
    given["scores"] = score_shares(np.array([1.5], np.float32), 1)
    file = tmp_path / "rollouts" / "heldout.parquet"
    metrics = assigner.evaluate(str(file), rollouts=rollouts, **given)
    (row,) = pyarrow.parquet.read_table(file).to_pylist()
    assert (row["prompt"], row["response"]) == ("안녕하세요?", "네, 반갑습니다.")
    assert (row["prompt_id"], row["sample_id"], row["version"], row["finished"]) == (4, 1, 6, True)
    assert (row["score"], row["response_length"]) == (1.5, len(response))
    assert row["kl"] == pytest.approx(0.5 * len(response))
    assert metrics["eval/reward_mean"] == 1.5
    assert metrics["eval/kl_mean"] == pytest.approx(0.5 * len(response))
    assert metrics["eval/reward_se"] == 0.0


def assigner_of(algorithm, folder) -> CreditAssigner:
    return CreditAssigner(algorithm, folder, max_response_tokens=8, compare_logprobs=False, max_reject_share=0.5)


def test_held_out_figures_and_texts_tell_a_rewards_parts_apart(tiny_qwen2, make_rollouts, tmp_path):
    made = make_rollouts([(2, 3), (1, 2), (3, 5), (2, 2)])
    judged = [Scored(right + 0.2 * marker, parts={"length": right, "marker": marker}) for right, marker in PARTS]
    share = ScoreShare.of(np.arange(4), [*judged, Scored(None, "nothing to say")], ("length", "marker"))
    given = {"rollouts": made, "scores": [share], "old_logprobs": engine_shares(made)}
    file = tmp_path / "heldout.parquet"
    metrics = assigner_of(GRPO(), tiny_qwen2).evaluate(str(file), **given)
    assert metrics["eval/length_mean"] == pytest.approx(10 / 3)  # in tokens: no part of this name gets in its way
    assert metrics["eval/reward/length_mean"] == pytest.approx(1 / 3)
    assert metrics["eval/reward/marker_mean"] == pytest.approx(2 / 3)
    # The standard error of a share p of n is the root of p (1 - p) / (n - 1).
    assert metrics["eval/reward/marker_se"] == pytest.approx((2 / 3 * 1 / 3 / 2) ** 0.5)
    rows = pyarrow.parquet.read_table(file).to_pylist()
    assert [(row["score/length"], row["score/marker"]) for row in rows[:3]] == PARTS
    assert np.isnan(rows[3]["score/marker"]) and rows[3]["rejected"] == "nothing to say"


def test_a_rollout_without_a_score_is_never_trained_on(tiny_qwen2, make_rollouts):
    made = make_rollouts([(2, 3), (1, 2), (3, 5), (2, 2)], prompt_ids=[0, 0, 1, 1])
    made = replace(made, sample_ids=np.array([0, 1, 0, 1], dtype=np.int32))
    old = np.where(mask_of(made), -0.5, 0).astype(np.float32)
    scores = np.array([1.0, np.nan, 3.0, 0.0], dtype=np.float32)
    given = {"rollouts": made, "scores": score_shares(scores, 2), "old_logprobs": shares(old, 1, made)}
    outcome, batch = assigner_of(GRPO(kl_coef=0), tiny_qwen2).assign(0, 0.0, **given)
    assert (outcome.metrics["ledger/trained"], outcome.metrics["ledger/rejected"]) == (3, 1)
    assert outcome.num_trained == 3 and np.isnan(outcome.mean_kl)
    assert outcome.ends == {(0, 0): None, (0, 1): "nothing to say", (1, 0): None, (1, 1): None}
    kept = np.array([0, 2, 3])
    np.testing.assert_array_equal(batch.rollouts.tokens, made.take(kept).tokens)
    wanted, _ = GRPO(kl_coef=0).assign_credit(ScoredRollouts(made.take(kept), scores[kept], old[kept], 8), 0.0)
    np.testing.assert_array_equal(batch.advantages, wanted.advantages)
    assert (batch.rollouts.padded(batch.advantages)[0] == 0).all()  # alone in its group


def test_a_step_without_any_score_says_so(tiny_qwen2, make_rollouts):
    made = make_rollouts([(2, 3)])
    nothing = np.full(1, np.nan, np.float32)
    given = {"rollouts": made, "scores": score_shares(nothing, 1), "old_logprobs": engine_shares(made)}
    with pytest.raises(RewardError, match=r"1 of 1 rollouts got no reward, .* 1 × nothing to say"):
        assigner_of(GRPO(), tiny_qwen2).assign(0, 0.0, **given)


def test_the_samplers_log_probs_are_the_old_ones_if_so_asked_and_nobody_compares_them(tiny_qwen2, make_rollouts):
    made = make_rollouts([(2, 3), (1, 2), (3, 1), (2, 2)], prompt_ids=[0, 0, 1, 1])
    scores = np.array([1.0, 2.0, 0.0, 5.0], np.float32)
    reference = made.padded(made.engine_logprobs) - 0.5 * mask_of(made)
    given = {"rollouts": made, "scores": score_shares(scores, 2), "ref_logprobs": shares(reference, 2, made)}
    assigner = CreditAssigner(GRPO(old_logprobs="sampler"), tiny_qwen2, 8, compare_logprobs=False)
    outcome, batch = assigner.assign(0, 0.1, **given)
    metrics = outcome.metrics
    np.testing.assert_array_equal(batch.old_logprobs, made.engine_logprobs)
    assert metrics["kl/token_mean"] == pytest.approx(0.5)
    assert "engine/logprob_gap_max" not in metrics
    with pytest.raises(AssertionError):  # a forward pass whose result nobody wants
        assigner.assign(0, 0.1, **given, old_logprobs=shares(reference, 2, made))


def test_remax_compares_with_the_greedy_response_to_the_same_prompt(tiny_qwen2, make_rollouts):
    made = Rollouts.concat([make_rollouts([(2, 3), (1, 2), (2, 2)], prompt_ids=[5, 7, 5])])
    greedy = Rollouts.concat([make_rollouts([(1, 4), (2, 1)], prompt_ids=[7, 5])])
    old = np.where(mask_of(made), -0.5, 0).astype(np.float32)
    given = {
        "rollouts": made,
        "scores": score_shares(np.array([1.0, 2.0, 3.0], np.float32), 1),  # in the order of prompts: 5, 5, 7
        "old_logprobs": shares(old, 1, made),
        "greedy": greedy,
        "greedy_scores": score_shares(np.array([10.0, 20.0], np.float32), 1),  # 5, 7
    }
    _, batch = assigner_of(ReMax(kl_coef=0), tiny_qwen2).assign(0, 0.0, **given)
    advantages = batch.rollouts.padded(batch.advantages)
    assert [row[mask][0] for row, mask in zip(advantages, mask_of(batch.rollouts), strict=True)] == [
        1.0 - 10,
        2.0 - 10,
        3.0 - 20,
    ]


def test_only_groups_whose_scores_differ_are_selected_and_joined_to_those_kept(tiny_qwen2, make_rollouts):
    first = groups(make_rollouts, [1, 9])
    second = groups(make_rollouts, [4, 3, 0])
    assigner = assigner_of(GRPO(), tiny_qwen2)

    def select(made, scores, most, kept):
        return assigner.select(made, score_shares(np.array(scores, np.float32), 2), kept, 2, 1e-6, most)

    found, rollouts, scores = select(first, [1, 1, 0, 5], 3, None)
    assert (found, rollouts.prompt_ids.tolist(), scores.values.tolist()) == (1, [9, 9], [0, 5])
    # Of prompts 0, 3 and 4 those that differ; a rejected response makes no difference.
    found, rollouts, scores = select(second, [1, np.nan, 2, 3, 7, 8], 2, (rollouts, scores))
    assert (found, rollouts.prompt_ids.tolist()) == (2, [3, 3, 4, 4, 9, 9])
    assert scores.values.tolist() == [2, 3, 7, 8, 0, 5]


@pytest.mark.parametrize(("most", "chosen"), [(4, 4), (2, 2), (1, 1)])
def test_a_prompt_that_a_step_met_twice_is_two_groups_in_the_selection(tiny_qwen2, make_rollouts, most, chosen):
    made = groups(make_rollouts, [1, 3, 3, 5])
    scores = score_shares(np.array([0, 1] * 4, np.float32), 1)
    found, rollouts, _ = assigner_of(GRPO(), tiny_qwen2).select(made, scores, None, 2, 1e-6, most)
    assert (found, len(rollouts)) == (chosen, 2 * chosen)


def test_no_prompt_is_selected_more_often_for_its_place_in_the_data(tiny_qwen2, make_rollouts):
    assigner = assigner_of(GRPO(), tiny_qwen2)
    counts = np.zeros(12)
    rng = np.random.default_rng(0)
    for _ in range(150):
        made = groups(make_rollouts, rng.permutation(12)[:6].tolist())
        _, rollouts, _ = assigner.select(made, score_shares(np.array([0, 1] * 6, np.float32), 1), None, 2, 1e-6, 2)
        counts[rollouts.prompt_ids[::2]] += 1
    assert counts.min() > 10 and counts.max() < 42  # of 25 each


def groups(make_rollouts, prompt_ids: list[int]) -> Rollouts:
    """Two responses for each draw of a prompt, as the pool gives them: ordered, with further ids in a second draw."""
    made = make_rollouts([(2, 3)] * 2 * len(prompt_ids), prompt_ids=np.repeat(prompt_ids, 2).tolist())
    draws = [prompt_ids[:index].count(prompt) for index, prompt in enumerate(prompt_ids)]
    sample_ids = np.array([2 * draw + sample for draw in draws for sample in (0, 1)], dtype=np.int32)
    return Rollouts.concat([replace(made, sample_ids=sample_ids)])


def test_the_gap_is_measured_on_response_tokens_alone(make_rollouts):
    rollouts = make_rollouts([(1, 2), (2, 1)])
    learner = rollouts.engine_logprobs.copy()
    learner[~rollouts.loss_mask] = 50.0
    learner[1] += 0.3
    gap = logprob_gap(rollouts, learner, version=0)
    assert gap["engine/logprob_gap_max"] == pytest.approx(0.3, rel=1e-5)
    assert gap["engine/logprob_gap_mean"] == pytest.approx(0.1, rel=1e-5)


def test_the_gap_is_measured_on_tokens_of_the_learners_own_version_alone(make_rollouts):
    rollouts = make_rollouts([(1, 2), (2, 1)])
    rollouts = replace(rollouts, versions=np.array([0, 3, 4, 0, 0, 3], dtype=np.int32))
    learner = rollouts.engine_logprobs + np.array([0, 9, 0.5, 0, 0, 9], dtype=np.float32)
    assert logprob_gap(rollouts, learner, version=4)["engine/logprob_gap_max"] == pytest.approx(0.5, rel=1e-5)
    assert logprob_gap(rollouts, learner, version=5) == {}
