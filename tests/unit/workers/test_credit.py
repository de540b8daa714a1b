"""The credit assigner puts shares of samplers and ranks together, and writes what was said."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest

from rayrlhf.algorithms import GRPO, PPO, ReMax, ScoredRollouts
from rayrlhf.rewards import RewardError
from rayrlhf.rewards import Score as Scored
from rayrlhf.types import Rollouts, RowShare
from rayrlhf.workers.credit import CreditAssigner, logprob_gap
from rayrlhf.workers.score_share import ScoreShare

PARTS = [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
"""(right, marker) of three responses."""


@pytest.fixture
def assigner(tiny_qwen2) -> CreditAssigner:
    return CreditAssigner(PPO(), tiny_qwen2, max_response_tokens=8, compare_logprobs=True)


def shares(values: np.ndarray, num_ranks: int) -> list[RowShare]:
    rows = np.arange(len(values))
    return [RowShare(rows[rank::num_ranks], values[rank::num_ranks]) for rank in range(num_ranks)]


def score_shares(values: np.ndarray, num_ranks: int) -> list[ScoreShare]:
    """Scores as the reward's ranks give them; NaN is a rejected rollout."""
    return [
        ScoreShare.of(
            share.rows, [Scored(None, "nothing to say") if np.isnan(v) else Scored(float(v)) for v in share.values], ()
        )
        for share in shares(values, num_ranks)
    ]


def flat(given: dict[str, list]) -> list:
    """Sizes by name, then all values, as the actor is called."""
    return [{name: len(values) for name, values in given.items()}, *(v for values in given.values() for v in values)]


@pytest.mark.parametrize(("samplers", "ranks"), [(1, 1), (2, 1), (3, 2)])
def test_credit_does_not_depend_on_how_many_samplers_and_ranks_there_were(assigner, make_rollouts, samplers, ranks):
    made = make_rollouts([(2, 3), (1, 2), (3, 5), (2, 2), (1, 1), (4, 3)])
    per_part = len(made) // samplers
    parts = [make_part(made, slice(start, start + per_part)) for start in range(0, len(made), per_part)]
    rng = np.random.default_rng(0)
    scores = rng.normal(size=len(made)).astype(np.float32)
    reference, old, values = (
        np.where(made.response_mask, -rng.random(made.tokens.shape), 0).astype(np.float32) for _ in range(3)
    )
    values = np.pad(values, ((0, 0), (0, 1)))
    arrays = {"scores": scores, "ref_logprobs": reference, "old_logprobs": old, "values": values}
    given = {"rollouts": parts} | {name: shares(array, ranks) for name, array in arrays.items()}
    given["scores"] = score_shares(scores, ranks)
    metrics, _, batch = assigner.assign(0, 0.1, None, *flat(given))
    wanted, wanted_metrics = PPO().assign_credit(ScoredRollouts(made, scores, old, 8, reference, values), 0.1)
    np.testing.assert_array_equal(batch.advantages, wanted.advantages)
    np.testing.assert_array_equal(batch.rollouts.tokens, made.tokens)
    assert wanted_metrics.items() <= metrics.items()
    gap = np.abs(made.engine_logprobs - old)[made.response_mask]
    assert metrics["engine/logprob_gap_max"] == pytest.approx(gap.max())
    assert metrics["engine/version_min"] == metrics["engine/version_max"] == 0.0


def make_part(made: Rollouts, rows: slice) -> Rollouts:
    return Rollouts(**{name: array[rows] for name, array in vars(made).items()})


def test_rollouts_are_written_as_text_with_their_scores(assigner, tokenizer, tmp_path):
    prompt, response = (
        tokenizer("안녕하세요?").input_ids,
        [*tokenizer("네, 반갑습니다.").input_ids, tokenizer.eos_token_id],
    )
    tokens = np.array([[*prompt, *response, 0, 0]], dtype=np.int32)
    length = len(prompt) + len(response)
    rollouts = Rollouts(
        tokens=tokens,
        prompt_lengths=np.array([len(prompt)], dtype=np.int32),
        lengths=np.array([length], dtype=np.int32),
        engine_logprobs=np.zeros(tokens.shape, dtype=np.float32),
        finished=np.array([True]),
        prompt_ids=np.array([4]),
        sample_ids=np.array([1], dtype=np.int32),
        versions=np.full_like(tokens, 6),
    )
    reference = np.where(rollouts.response_mask, -0.5, 0).astype(np.float32)
    arrays = {"scores": np.array([1.5], np.float32), "ref_logprobs": reference, "old_logprobs": reference * 0}
    given = {"rollouts": [rollouts]} | {name: shares(array, 1) for name, array in arrays.items()}
    given["scores"] = score_shares(arrays["scores"], 1)
    file = tmp_path / "rollouts" / "heldout.parquet"
    metrics = assigner.evaluate(str(file), *flat(given))
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
    given = {"rollouts": [made], "scores": [share], "old_logprobs": shares(made.engine_logprobs, 1)}
    file = tmp_path / "heldout.parquet"
    metrics = assigner_of(GRPO(), tiny_qwen2).evaluate(str(file), *flat(given))
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
    old = np.where(made.response_mask, -0.5, 0).astype(np.float32)
    scores = np.array([1.0, np.nan, 3.0, 0.0], dtype=np.float32)
    given = {"rollouts": [made], "scores": score_shares(scores, 2), "old_logprobs": shares(old, 1)}
    metrics, ends, batch = assigner_of(GRPO(kl_coef=0), tiny_qwen2).assign(0, 0.0, None, *flat(given))
    assert (metrics["ledger/trained"], metrics["ledger/rejected"]) == (3, 1)
    assert ends == {(0, 0): None, (0, 1): "nothing to say", (1, 0): None, (1, 1): None}
    kept = np.array([0, 2, 3])
    np.testing.assert_array_equal(batch.rollouts.tokens, made.tokens[kept])
    wanted, _ = GRPO(kl_coef=0).assign_credit(ScoredRollouts(made.take(kept), scores[kept], old[kept], 8), 0.0)
    np.testing.assert_array_equal(batch.advantages, wanted.advantages)
    assert (batch.advantages[0] == 0).all()  # alone in its group


def test_a_step_without_any_score_says_so(tiny_qwen2, make_rollouts):
    made = make_rollouts([(2, 3)])
    nothing = np.full(1, np.nan, np.float32)
    given = {"rollouts": [made], "scores": score_shares(nothing, 1), "old_logprobs": shares(made.engine_logprobs, 1)}
    with pytest.raises(RewardError, match=r"1 of 1 rollouts got no reward, .* 1 × nothing to say"):
        assigner_of(GRPO(), tiny_qwen2).assign(0, 0.0, None, *flat(given))


def test_the_samplers_log_probs_are_the_old_ones_if_so_asked_and_nobody_compares_them(tiny_qwen2, make_rollouts):
    made = make_rollouts([(2, 3), (1, 2), (3, 1), (2, 2)], prompt_ids=[0, 0, 1, 1])
    parts = [make_part(made, slice(0, 2)), make_part(made, slice(2, 4))]
    scores, reference = np.array([1.0, 2.0, 0.0, 5.0], np.float32), made.engine_logprobs - 0.5 * made.response_mask
    given = {"rollouts": parts, "scores": score_shares(scores, 2), "ref_logprobs": shares(reference, 2)}
    assigner = CreditAssigner(GRPO(old_logprobs="sampler"), tiny_qwen2, 8, compare_logprobs=False)
    metrics, _, batch = assigner.assign(0, 0.1, None, *flat(given))
    np.testing.assert_array_equal(batch.old_logprobs, made.engine_logprobs)
    assert metrics["kl/token_mean"] == pytest.approx(0.5)
    assert "engine/logprob_gap_max" not in metrics
    with pytest.raises(AssertionError):  # a forward pass whose result nobody wants
        assigner.assign(0, 0.1, None, *flat(given | {"old_logprobs": shares(reference, 2)}))


def test_remax_compares_with_the_greedy_response_to_the_same_prompt(tiny_qwen2, make_rollouts):
    made = make_rollouts([(2, 3), (1, 2), (2, 2)], prompt_ids=[5, 7, 5])
    greedy = make_rollouts([(1, 4), (2, 1)], prompt_ids=[7, 5])
    old = np.where(made.response_mask, -0.5, 0).astype(np.float32)
    given = {
        "rollouts": [made],
        "scores": score_shares(np.array([1.0, 2.0, 3.0], np.float32), 1),  # in the order of prompts: 5, 5, 7
        "old_logprobs": shares(old[[0, 2, 1]], 1),
        "greedy_rollouts": [greedy],
        "greedy_scores": score_shares(np.array([10.0, 20.0], np.float32), 1),  # 5, 7
    }
    _, _, batch = assigner_of(ReMax(kl_coef=0), tiny_qwen2).assign(0, 0.0, None, *flat(given))
    assert [row[mask][0] for row, mask in zip(batch.advantages, batch.rollouts.response_mask, strict=True)] == [
        1.0 - 10,
        2.0 - 10,
        3.0 - 20,
    ]


def test_only_groups_whose_scores_differ_are_selected_and_joined_to_those_kept(tiny_qwen2, make_rollouts):
    first = make_rollouts([(2, 3)] * 4, prompt_ids=[1, 1, 9, 9], seed=1)
    second = make_rollouts([(2, 3)] * 6, prompt_ids=[4, 4, 3, 3, 0, 0], seed=2)
    assigner = assigner_of(GRPO(), tiny_qwen2)

    def select(made, scores, most, kept_rollouts, kept_scores):
        given = {"kept_rollouts": kept_rollouts, "kept_scores": kept_scores, "rollouts": [made]}
        return assigner.select(1e-6, most, *flat(given | {"scores": score_shares(np.array(scores, np.float32), 2)}))

    found, rollouts, scores = select(first, [1, 1, 0, 5], 3, [], [])
    assert (found, rollouts.prompt_ids.tolist(), scores.values.tolist()) == (1, [9, 9], [0, 5])
    # Of prompts 0, 3 and 4 the first two that differ; a rejected response makes no difference.
    found, rollouts, scores = select(second, [1, np.nan, 2, 3, 7, 8], 2, [rollouts], [scores])
    assert (found, rollouts.prompt_ids.tolist()) == (2, [3, 3, 4, 4, 9, 9])
    assert scores.values.tolist() == [2, 3, 7, 8, 0, 5]


def test_the_gap_is_measured_on_response_tokens_alone(make_rollouts):
    rollouts = make_rollouts([(1, 2), (2, 1)])
    learner = rollouts.engine_logprobs.copy()
    learner[~rollouts.response_mask] = 50.0
    learner[0, 1] += 0.3
    gap = logprob_gap(rollouts, learner, version=0)
    assert gap["engine/logprob_gap_max"] == pytest.approx(0.3, rel=1e-5)
    assert gap["engine/logprob_gap_mean"] == pytest.approx(0.1, rel=1e-5)


def test_the_gap_is_measured_on_tokens_of_the_learners_own_version_alone(make_rollouts):
    rollouts = make_rollouts([(1, 2), (2, 1)])
    rollouts = replace(rollouts, versions=np.array([[0, 3, 4], [0, 0, 3]], dtype=np.int32))
    learner = rollouts.engine_logprobs + np.array([[0, 9, 0.5], [0, 0, 9]], dtype=np.float32)
    assert logprob_gap(rollouts, learner, version=4)["engine/logprob_gap_max"] == pytest.approx(0.5, rel=1e-5)
    assert logprob_gap(rollouts, learner, version=5) == {}
