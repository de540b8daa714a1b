"""Process rewards: scores of single steps, from a function or a model, stand on the tokens that end them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from rayrlhf.algorithms import GRPO, PPO, ReinforcePP, ScoredRollouts
from rayrlhf.algorithms.moments import RunningMoments
from rayrlhf.models import RewardStatistics, ScalarModel
from rayrlhf.rewards import Reward
from rayrlhf.rewards.child import checked
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import RowShare
from rayrlhf.workers.credit import CreditAssigner
from rayrlhf.workers.rewarder import Rewarder
from rayrlhf.workers.score_share import ScoreShare
from rayrlhf.workers.scorer import ScorerConfig
from rayrlhf.workers.step_scores import StepScores, token_ends
from rayrlhf.workers.text_scorer import as_rollouts

TEXTS = ("불고기. 천천히. 네", "네.", "한우도 좋고. ")
"""Of three, one and two steps, the last of the third one without anything but a space."""


def reward(**tree) -> Reward:
    return TypeAdapter(Reward).validate_python(tree)


@pytest.fixture
def rollouts(tokenizer):
    rows = [(tokenizer("어때요?").input_ids, [*tokenizer(text).input_ids, tokenizer.eos_token_id]) for text in TEXTS]
    return as_rollouts(rows)


@pytest.fixture
def by_function(tmp_path, tiny_qwen2):
    """A reward of 1, 2, 3, … for the steps, which end with a full stop, and 10 for the whole."""
    file = tmp_path / "steps.py"
    file.write_text(
        "import re\n"
        "def f(response):\n"
        "    ends = [match.end() for match in re.finditer(r'\\.', response)]\n"
        "    return {'score': 10, 'steps': [(end, 1 + i) for i, end in enumerate(ends)]}\n"
    )

    def make(ranks: Ranks = Ranks(), **source) -> Rewarder:  # noqa: B008
        return Rewarder(reward(kind="function", path=f"{file}:f", **source), ScorerConfig(), tiny_qwen2, None, ranks)

    return make


def prefix(rollouts, tokenizer, row: int, token: int) -> str:
    """The response's text up to a token of its row, that one included."""
    start = rollouts.offsets[row]
    tokens = rollouts.tokens[start + rollouts.prompt_lengths[row] : start + token + 1]
    return tokenizer.decode(tokens, skip_special_tokens=True)


def test_steps_of_a_function_are_found_in_the_tokens(by_function, rollouts, tokenizer):
    share = by_function().score(rollouts)
    assert share.values.tolist() == [10 + 1 + 2, 10 + 1, 10 + 1]
    assert share.steps.rows.tolist() == [0, 0, 1, 2]
    assert share.steps.values.tolist() == [1, 2, 1, 1]
    ends = [prefix(rollouts, tokenizer, *at) for at in zip(share.steps.rows, share.steps.tokens, strict=True)]
    assert ends == ["불고기.", "불고기. 천천히.", "네.", "한우도 좋고."]


def test_steps_survive_ranks_choices_and_joins(by_function, rollouts):
    whole = by_function().score(rollouts)
    shares = [by_function(Ranks(rank, 2, joins=False)).score(rollouts) for rank in range(2)]
    merged = ScoreShare.merge(shares, 3)
    found = merged.steps.padded((3, 99))
    np.testing.assert_array_equal(found, whole.steps.padded((3, 99)))
    parts = [whole.take(np.array([2, 0])), whole.take(np.array([1]))]
    np.testing.assert_array_equal(ScoreShare.join(parts).steps.padded((3, 99)), found[[2, 0, 1]])
    assert ScoreShare.join([parts[1].take(np.zeros(0, dtype=np.int64))]).steps.padded((0, 9)) is None


def test_a_sum_weighs_the_steps_of_its_parts(by_function, rollouts, tmp_path, tiny_qwen2):
    part = {"weight": 0.5, "source": {"kind": "function", "path": f"{tmp_path}/steps.py:f"}}
    rules = {"source": {"kind": "rules", "rules": [{"kind": "length", "max": 1000}]}}
    rewarder = Rewarder(reward(kind="sum", parts=[part, rules]), ScorerConfig(), tiny_qwen2, None, Ranks())
    share = rewarder.score(rollouts)
    assert share.steps.values.tolist() == [0.5, 1.0, 0.5, 0.5]
    assert (share.values - by_function().score(rollouts).values / 2 == share.values[1] - 5.5).all()


@pytest.mark.parametrize("retokenize", [False, True])
def test_a_process_reward_model_is_read_where_steps_end(rollouts, tiny_qwen2, tokenizer, tmp_path, retokenize):
    model = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(model.model.score.weight, generator=torch.Generator().manual_seed(0))
    model.statistics = RewardStatistics(0.5, 2.0)
    model.save(tmp_path / "prm", tokenizer)
    source = reward(kind="reward_model", model=str(tmp_path / "prm"), step_end=".", retokenize=retokenize)
    share = Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks()).score(rollouts)
    assert share.steps.rows.tolist() == [0, 0, 0, 1, 2, 2]
    outputs = (model(torch.from_numpy(rollouts.padded(rollouts.tokens).astype(np.int64))) - 0.5) / 2.0
    wanted = outputs.detach().numpy()[share.steps.rows, share.steps.tokens]
    np.testing.assert_allclose(share.steps.values, wanted, atol=1e-5)
    np.testing.assert_allclose(share.values, np.bincount(share.steps.rows, weights=wanted), atol=1e-5)
    texts = [prefix(rollouts, tokenizer, 0, token) for token in share.steps.tokens[:3]]
    assert texts == ["불고기.", "불고기. 천천히.", "불고기. 천천히. 네"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"steps": "no"}, "the score is a dict other than {score, steps: [[end, score], …]}"),
        ({"score": 1.0}, "the score is a dict other than {score, steps: [[end, score], …]}"),
        ({"steps": [], "more": 1}, "the score is a dict other than {score, steps: [[end, score], …]}"),
        ({"steps": [3]}, "a step is not [end, score]"),
        ({"steps": [[0, 1.0]]}, "a step's end is not a number of characters, 1 or more"),
        ({"steps": [[True, 1.0]]}, "a step's end is not a number of characters, 1 or more"),
        ({"steps": [[3, float("nan")]]}, "the score is NaN"),
        ({"score": None, "steps": [[3, 1.0]]}, "the score is None"),
        ({"score": 3e38, "steps": [[3, 3e38]]}, "the score is infinite, or larger than a float32"),
    ],
)
def test_steps_that_cannot_be_used_reject_the_response(given, reason):
    result = checked(given)
    assert (result["value"], result["reason"]) == (None, reason)


def test_numbers_of_numpy_are_ends_and_scores_and_a_score_of_steps_alone_is_their_sum():
    assert checked({"steps": [[np.int64(3), np.float32(1.5)], (5, 2)]}) == {"value": 3.5, "steps": [[3, 1.5], [5, 2.0]]}


def test_a_step_that_ends_behind_the_response_ends_with_its_last_token(tokenizer):
    tokens = np.array(tokenizer("네. 천천히").input_ids)
    assert token_ends(tokens, [10_000], tokenizer) == [len(tokens) - 1]


def test_each_token_is_worth_what_follows_it(by_function, rollouts, tiny_qwen2):
    share = by_function().score(rollouts)
    width = int(rollouts.lengths.max())
    zeros = np.zeros(len(rollouts.tokens), dtype=np.float32)

    def advantages(algorithm, **settings):
        assigner = CreditAssigner(algorithm.model_copy(update=settings), tiny_qwen2, 64, compare_logprobs=False)
        rows = np.arange(3)
        given = {"rollouts": rollouts, "scores": [share], "old_logprobs": [RowShare(rows, zeros, rollouts.lengths)]}
        if algorithm.needs_critic:
            states = np.zeros(len(zeros) + 3, dtype=np.float32)
            given["values"] = [RowShare(rows, states, rollouts.lengths + 1)]
        _, batch = assigner.assign(0, 0.0, **given)
        return rollouts.padded(batch.advantages, width=width)

    steps, tokens, values = share.steps.rows, share.steps.tokens, share.steps.values
    found = advantages(PPO(kl_coef=0.0, lam=1.0), whiten_advantages=False)
    for row in range(3):
        length = int(rollouts.lengths[row])
        for token in range(int(rollouts.prompt_lengths[row]), length):
            later = values[(steps == row) & (tokens >= token)].sum()
            assert found[row, token] == pytest.approx(10 + later, rel=1e-5)
    with_steps = {algorithm.kind: advantages(algorithm) for algorithm in (GRPO(kl_coef=0.0), ReinforcePP(kl_coef=0.0))}
    share = replace(share, steps=StepScores.none())
    np.testing.assert_allclose(with_steps["grpo"], advantages(GRPO(kl_coef=0.0)), atol=1e-6)  # compares whole returns
    assert np.abs(with_steps["reinforce_pp"] - advantages(ReinforcePP(kl_coef=0.0))).max() > 0.1


@pytest.mark.parametrize("learn_next_state", [True, False])
def test_on_the_next_state_stands_what_no_step_earned(make_rollouts, learn_next_state):
    rollouts = make_rollouts([(2, 4), (2, 6)])
    steps = np.zeros((2, 8), np.float32)
    steps[0, 3], steps[1, 4] = 2.0, 1.0
    zeros = np.zeros((2, 8), np.float32)
    scored = ScoredRollouts(
        rollouts, np.array([5, 4], np.float32), zeros, 8, values=np.zeros((2, 9), np.float32), step_scores=steps
    )
    settings = {"kl_coef": 0.0, "lam": 1.0, "whiten_advantages": False, "learn_next_state": learn_next_state}
    batch, _ = PPO(score_on="next_state", **settings).assign_credit(scored, 0.0)
    returns = rollouts.padded(batch.returns)
    assert returns[0].tolist() == [0, 0, 5, 5, 3, 3, 3, 0, 0]  # a step of 2 at token 3, and 3 after the last token
    assert returns[1].tolist() == [0, 0, 4, 4, 4, 3, 3, 3, 0]  # the longest response has no next state


def test_normalized_steps_stay_as_they_are_while_all_responses_score_the_same(make_rollouts):
    rollouts = make_rollouts([(2, 4), (2, 6)])
    steps = StepScores(np.array([0, 1]), np.array([3, 4]), np.array([2.0, 1.0], np.float32))
    scores = np.array([0.3, 0.3], np.float32)
    moments = RunningMoments()
    moments.update(scores)
    zeros = np.zeros((2, 8), np.float32)
    scored = ScoredRollouts(rollouts, scores, zeros, 64, step_scores=steps.padded((2, 8)))
    scored = replace(scored, moments=(moments.mean, moments.deviation))
    rewards = ReinforcePP().token_rewards(scored, scored.mask, 0.0)
    assert rewards[:, 2:].tolist() == [[0, 2, 0, -2, 0, 0], [0, 0, 1, 0, 0, -1]]
