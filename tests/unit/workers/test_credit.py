"""The credit assigner puts shares of samplers and ranks together, and writes what was said."""

import numpy as np
import pyarrow.parquet
import pytest

from rayrlhf.algorithms import PPO
from rayrlhf.types import Rollouts, RowShare
from rayrlhf.workers.credit import CreditAssigner, logprob_gap


@pytest.fixture
def assigner(tiny_qwen2) -> CreditAssigner:
    return CreditAssigner(PPO(), tiny_qwen2, compare_logprobs=True)


def shares(values: np.ndarray, num_ranks: int) -> list[RowShare]:
    rows = np.arange(len(values))
    return [RowShare(rows[rank::num_ranks], values[rank::num_ranks]) for rank in range(num_ranks)]


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
    groups = [parts, *(shares(array, ranks) for array in (scores, reference, old, values))]
    metrics, batch = assigner.assign(
        0.1, None, [len(group) for group in groups], *(v for group in groups for v in group)
    )
    wanted, wanted_metrics = PPO().assign_credit(made, scores, reference, old, values, 0.1)
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
        versions=np.array([6]),
    )
    reference = np.where(rollouts.response_mask, -0.5, 0).astype(np.float32)
    judged = [shares(array, 1) for array in (np.array([1.5], dtype=np.float32), reference, np.zeros_like(reference))]
    file = tmp_path / "rollouts" / "heldout.parquet"
    metrics = assigner.evaluate(str(file), [1, 1, 1, 1], rollouts, *(share for group in judged for share in group))
    (row,) = pyarrow.parquet.read_table(file).to_pylist()
    assert (row["prompt"], row["response"]) == ("안녕하세요?", "네, 반갑습니다.")
    assert (row["prompt_id"], row["sample_id"], row["version"], row["finished"]) == (4, 1, 6, True)
    assert (row["score"], row["response_length"]) == (1.5, len(response))
    assert row["kl"] == pytest.approx(0.5 * len(response))
    assert metrics["eval/reward_mean"] == 1.5
    assert metrics["eval/kl_mean"] == pytest.approx(0.5 * len(response))
    assert metrics["eval/reward_se"] == 0.0


def test_the_gap_is_measured_on_response_tokens_alone(make_rollouts):
    rollouts = make_rollouts([(1, 2), (2, 1)])
    learner = rollouts.engine_logprobs.copy()
    learner[~rollouts.response_mask] = 50.0
    learner[0, 1] += 0.3
    gap = logprob_gap(rollouts, learner)
    assert gap["engine/logprob_gap_max"] == pytest.approx(0.3, rel=1e-5)
    assert gap["engine/logprob_gap_mean"] == pytest.approx(0.1, rel=1e-5)
