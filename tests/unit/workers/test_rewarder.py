"""The reward's workers: texts, gold answers and rows that reach the reward; shares of ranks; models beside rules."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from rayrlhf.data.tokens.columns import Columns
from rayrlhf.models import RewardStatistics, ScalarModel
from rayrlhf.rewards import Reward, Score, rewards_rank
from rayrlhf.rewards.base import Judge
from rayrlhf.rewards.rules import RulesJudge
from rayrlhf.training.batching import plan_microbatches
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import Rollouts, RowShare
from rayrlhf.workers.rewarder import Rewarder
from rayrlhf.workers.score_share import Rejection, ScoreShare
from rayrlhf.workers.scorer import RewardModelScorer, ScorerConfig
from rayrlhf.workers.text_scorer import as_rollouts

LENGTH = {"kind": "length", "max": 1, "falloff": 100}


def reward(**tree) -> Reward:
    return TypeAdapter(Reward).validate_python(tree)


@pytest.fixture(scope="module")
def make_model(tiny_qwen2, tokenizer, tmp_path_factory):
    """`make_model(seed)`: folder of a reward model with a random head."""

    def make(seed: int) -> str:
        model = ScalarModel.load(tiny_qwen2)
        torch.nn.init.normal_(model.model.score.weight, generator=torch.Generator().manual_seed(seed))
        model.statistics = RewardStatistics(0.5, 2.0)
        folder = tmp_path_factory.mktemp("models") / str(seed)
        model.save(folder, tokenizer)
        return str(folder)

    return make


@pytest.fixture
def make_texts(tokenizer):
    """`make_texts([(prompt, response, finished)])`: rollouts of these texts, the last prompt first."""

    def make(*texts: tuple[str, str, bool]) -> Rollouts:
        rows = []
        for prompt, response, finished in texts:
            end = [tokenizer.eos_token_id] if finished else []
            rows.append((tokenizer(prompt).input_ids, [*tokenizer(response).input_ids, *end]))
        last_first = as_rollouts(rows[::-1])
        return replace(
            last_first,
            finished=np.array([finished for *_, finished in texts])[::-1],
            prompt_ids=np.arange(len(rows))[::-1],
        )

    return make


def test_a_reward_sees_texts_without_special_tokens_and_each_prompts_gold_answer(make_texts, tiny_qwen2, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "GIVEN = [('안녕하세요?', '네.', 'yes', True), ('불고기용 고기', '한우도', None, False)]\n"
        "def f(prompt, response, gold_answer, finished):\n"
        "    return GIVEN.index((prompt, response, gold_answer, finished))\n"
    )
    rollouts = Rollouts.concat([make_texts(("안녕하세요?", "네.", True), ("불고기용 고기", "한우도", False))])
    rewarder = Rewarder(reward(kind="function", path=f"{file}:f"), ScorerConfig(), tiny_qwen2, ["yes", None], Ranks())
    share = rewarder.score(rollouts)
    assert (share.rows.tolist(), share.values.tolist(), share.rejections) == ([0, 1], [0.0, 1.0], {})
    assert (share.part_names, share.part_values.shape) == ((), (2, 0))


def test_data_without_gold_answers_give_none(make_texts, tiny_qwen2):
    rewarder = Rewarder(reward(kind="rules", rules=[{"kind": "exact"}]), ScorerConfig(), tiny_qwen2, None, Ranks())
    share = rewarder.score(make_texts(("a", "b", True)))
    assert np.isnan(share.values).all()
    assert share.rejections == {0: Rejection("the row has no gold answer")}


def test_a_rejected_rollout_has_no_score_and_its_neighbors_have(make_texts, tiny_qwen2, tmp_path):
    (tmp_path / "mine.py").write_text("def f(response): return 1 / (response != 'No idea.')")
    source = reward(kind="function", path=f"{tmp_path}/mine.py:f", num_retries=0)
    share = Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks()).score(
        make_texts(("Hello", "Look it up.", True), ("Hello", "No idea.", True), ("Hello", "Nine.", True))
    )
    np.testing.assert_array_equal(share.values, np.array([1.0, np.nan, 1.0], dtype=np.float32))
    assert share.accepted.tolist() == [True, False, True]
    assert share.rejections[1].reason == "raised ZeroDivisionError"
    assert "division by zero" in share.rejections[1].trace


@pytest.mark.parametrize("num_ranks", [1, 2, 5])
@pytest.mark.parametrize("with_model", [False, True])
def test_the_ranks_together_score_every_row_once_whatever_their_number(
    make_rollouts, make_model, tiny_qwen2, num_ranks, with_model
):
    parts = [{"source": {"kind": "rules", "rules": [LENGTH]}}]
    if with_model:
        parts.append({"weight": 0.5, "source": {"kind": "reward_model", "model": make_model(0)}})
    source = reward(kind="sum", parts=parts)
    config = ScorerConfig(max_tokens_per_microbatch=16)
    rollouts = make_rollouts([(2, 3), (1, 9), (4, 1), (3, 6)])
    shares = [
        Rewarder(source, config, tiny_qwen2, None, Ranks(rank, num_ranks, joins=False)).score(rollouts)
        for rank in range(num_ranks)
    ]
    merged = ScoreShare.merge(shares[::-1], len(rollouts))
    alone = Rewarder(source, config, tiny_qwen2, None, Ranks()).score(rollouts)
    assert merged.part_names == alone.part_names == source.part_names
    np.testing.assert_allclose(merged.values, alone.values, rtol=1e-5)
    np.testing.assert_allclose(merged.part_values, alone.part_values, rtol=1e-5)
    assert len(set(alone.values.tolist())) == len(rollouts)


def test_several_reward_models_add_up_by_weight_and_each_is_reported(make_rollouts, make_model, tiny_qwen2):
    folders = [make_model(0), make_model(1)]
    source = reward(
        kind="sum",
        parts=[
            {"weight": 2.0, "name": "helpful", "source": {"kind": "reward_model", "model": folders[0]}},
            {
                "weight": -1.0,
                "name": "long",
                "source": {"kind": "reward_model", "model": folders[1], "pooling": "mean", "normalize": False},
            },
        ],
    )
    rollouts = make_rollouts([(2, 3), (1, 1), (4, 2)])
    settings = [("last", True), ("mean", False)]
    helpful, long = (
        RowShare.merge([RewardModelScorer(folder, *setting, ScorerConfig(), Ranks()).score(rollouts)], 3)
        for folder, setting in zip(folders, settings, strict=True)
    )
    share = Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks()).score(rollouts)
    np.testing.assert_allclose(share.values, 2 * helpful - long, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(share.part_values, np.stack([helpful, long], 1), rtol=1e-5)
    assert share.metrics()["reward/helpful_mean"] == pytest.approx(helpful.mean(), rel=1e-5)


def test_a_reward_model_whose_score_is_not_finite_rejects_the_rollout(make_rollouts, make_model, tiny_qwen2, tokenizer):
    folder = make_model(2)
    model = ScalarModel.load(folder)
    torch.nn.init.constant_(model.model.score.weight, float("nan"))
    model.save(Path(folder), tokenizer)
    source = reward(kind="reward_model", model=folder)
    share = Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks()).score(make_rollouts([(2, 3)]))
    assert share.rejections == {0: Rejection("the model's score is not finite")}


# groups


def grouped(make_rollouts, prompt_ids, seed=0) -> Rollouts:
    """Random rollouts of these prompts, their samples numbered, in the order of a step."""
    lengths = np.random.default_rng(seed).integers(1, 9, (len(prompt_ids), 2)).tolist()
    rollouts = make_rollouts(lengths, prompt_ids=sorted(prompt_ids))
    samples = [rollouts.prompt_ids[:row].tolist().count(prompt) for row, prompt in enumerate(rollouts.prompt_ids)]
    return replace(rollouts, sample_ids=np.array(samples, dtype=np.int32))


def rows_by_rank(source, rollouts, tiny_qwen2, num_ranks) -> list[list[int]]:
    config = ScorerConfig(max_tokens_per_microbatch=16)
    return [
        Rewarder(source, config, tiny_qwen2, None, Ranks(rank, num_ranks, joins=False)).score(rollouts).rows.tolist()
        for rank in range(num_ranks)
    ]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["rules", "model", "both"])
def test_all_samples_of_a_prompt_go_to_one_rank_and_every_row_to_exactly_one(
    make_rollouts, make_model, tiny_qwen2, num_ranks, kind
):
    rules, model = {"kind": "rules", "rules": [LENGTH]}, {"kind": "reward_model", "model": make_model(0)}
    both = {"kind": "sum", "parts": [{"source": rules}, {"source": model}]}
    source = reward(**{"rules": rules, "model": model, "both": both}[kind])
    rollouts = grouped(make_rollouts, [3, 3, 3, 4, 4, 8, 8, 8, 8, 15])
    shares = rows_by_rank(source, rollouts, tiny_qwen2, num_ranks)
    assert sorted(row for rows in shares for row in rows) == list(range(10))
    assert all(rows == sorted(rows) for rows in shares)
    prompts = [set(rollouts.prompt_ids[rows].tolist()) for rows in shares]
    assert sum(map(len, prompts)) == 4, "no prompt is on two ranks"
    if source.scores_texts:
        assert prompts == [{p for p in (3, 4, 8, 15) if rewards_rank(p, num_ranks) == r} for r in range(num_ranks)]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_models_share_single_samples_by_their_tokens(make_rollouts, make_model, tiny_qwen2, num_ranks):
    rollouts = grouped(make_rollouts, [2, 4, 5, 9, 11, 12, 20])
    plan = plan_microbatches(rollouts.lengths, 16, num_ranks)
    assert rows_by_rank(reward(kind="reward_model", model=make_model(0)), rollouts, tiny_qwen2, num_ranks) == [
        sorted(row for microbatch in rank for row in microbatch) for rank in plan
    ]


def test_models_balance_whole_groups_by_their_tokens(make_rollouts, make_model, tiny_qwen2):
    rollouts = make_rollouts([(1, 1)] * 4 + [(2, 30)] * 4 + [(2, 28)] * 4, prompt_ids=[0] * 4 + [1] * 4 + [2] * 4)
    shares = rows_by_rank(reward(kind="reward_model", model=make_model(0)), rollouts, tiny_qwen2, 2)
    assert {4, 5, 6, 7} <= set(shares[0])
    assert {8, 9, 10, 11} <= set(shares[1])


# early


RANKING = """
import os, pathlib, time
CALLS = pathlib.Path({calls!r})

def note(row):
    with CALLS.open("a") as file:
        print(row, file=file)

def alone(prompt, response, category):
    note(response)
    {misbehavior}
    return len(response) + 100 * (category == "art")

def ranked(response):
    return [sorted(response).index(each) for each in response]
"""

TEXTS = [
    ("Hello", "No idea.", True),
    ("Hello", "Nine in the morning.", False),
    ("네", "그래", True),
    ("네", "한우도", True),
    ("Busan", "Look it up.", False),
]
IDS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


@pytest.fixture
def make_early(make_texts, tiny_qwen2, tmp_path):
    """`make_early(misbehavior)`: (a rewarder of two functions and a rule, a step's rollouts, the calls so far)."""
    made = []
    columns = Columns.of(["category"], [["art"], [None], ["law"]])

    def make(misbehavior: str = "pass", **settings):
        calls = tmp_path / "calls"
        calls.touch()
        (tmp_path / "mine.py").write_text(RANKING.format(calls=str(calls), misbehavior=misbehavior))
        function = {"kind": "function", "num_retries": 0, "timeout_s": 20.0, "path": f"{tmp_path}/mine.py:alone"}
        parts = [
            {"source": function | settings},
            {"source": function | {"path": f"{tmp_path}/mine.py:ranked", "compares": True}, "name": "ranked"},
            {"source": {"kind": "rules", "rules": [LENGTH]}},
        ]
        rewarder = Rewarder(reward(kind="sum", parts=parts), ScorerConfig(), tiny_qwen2, None, Ranks(), columns)
        made.append(rewarder)
        rollouts = make_texts(*TEXTS).take(np.arange(len(TEXTS))[::-1])
        ids = np.array(IDS)
        return rewarder, replace(rollouts, prompt_ids=ids[:, 0], sample_ids=ids[:, 1].astype(np.int32)), calls

    yield make
    for rewarder in made:
        rewarder.close()


def of_prompts(rollouts: Rollouts, *prompts: int) -> Rollouts:
    return rollouts.take(np.flatnonzero(np.isin(rollouts.prompt_ids, prompts))[::-1])  # as completed: in any order


def assert_same_share(one: ScoreShare, other: ScoreShare) -> None:
    for name in ("rows", "values", "part_values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    reasons = [[(row, why.reason) for row, why in share.rejections.items()] for share in (one, other)]
    assert reasons[0] == reasons[1]


MISBEHAVIOR = {
    "nothing": ("pass", None),
    "hangs": ("while response == '그래': pass", "timed out after 1 s"),
    "crashes": ("if response == '그래': os._exit(3)", "the process exited with code 3"),
    "raises": ("assert response != '그래'", "raised AssertionError"),
}


@pytest.mark.parametrize("misbehavior", MISBEHAVIOR)
def test_scores_are_the_same_whether_and_when_groups_were_begun(make_early, misbehavior):
    code, reason = MISBEHAVIOR[misbehavior]
    rewarder, rollouts, calls = make_early(code, timeout_s=1.0 if misbehavior == "hangs" else 20.0)
    late = rewarder.score(rollouts)
    assert {row: why.reason for row, why in late.rejections.items()} == ({2: f"function: {reason}"} if reason else {})
    assert late.accepted.sum() == 5 - (reason is not None)
    if reason is None:
        assert late.part_values[:, 0].tolist() == [108.0, 120.0, 2.0, 3.0, 11.0], "columns by prompt"
        assert late.part_values[:, 1].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0], "compared within the prompt"
    for begun in ([0, 1, 2], [2], [1, 0], [1, 1]):
        calls.write_text("")
        for prompt in begun:
            rewarder.begin(of_prompts(rollouts, prompt))
        assert_same_share(rewarder.score(rollouts), late)
        assert len(calls.read_text().splitlines()) == 5, "each row is scored once"


def test_beginning_returns_at_once_and_the_scores_are_there_when_the_step_is(make_early):
    rewarder, rollouts, calls = make_early("time.sleep(1)", max_concurrency=5)
    rewarder.score(of_prompts(rollouts, 2))  # processes are there
    started = time.monotonic()
    rewarder.begin(rollouts)
    assert time.monotonic() - started < 0.5
    while len(calls.read_text().splitlines()) < 6:
        assert time.monotonic() - started < 20
        time.sleep(0.05)
    rewarder.score(rollouts)
    assert len(calls.read_text().splitlines()) == 6


def test_a_response_that_was_sampled_anew_is_scored_anew_and_so_is_its_group(make_early, tokenizer):
    rewarder, rollouts, calls = make_early()
    tokens = rollouts.tokens.copy()
    first = rollouts.offsets[:-1] + rollouts.prompt_lengths  # of each response
    tokens[first[3]] = tokens[first[2]]
    rewarder.begin(replace(rollouts, tokens=tokens))
    assert_same_share(rewarder.score(rollouts), rewarder.score(rollouts))
    assert len(calls.read_text().splitlines()) == 5 + 1 + 5


def test_groups_of_another_rank_are_left_to_it(make_early, tiny_qwen2, tmp_path):
    _, rollouts, calls = make_early()
    source = reward(kind="function", path=f"{tmp_path}/mine.py:alone")
    columns = Columns.of(["category"], [["art"], [None], ["law"]])
    ranks = [Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks(r, 2, joins=False), columns) for r in range(2)]
    for rewarder in ranks:
        rewarder.begin(rollouts)
        rewarder.begin(of_prompts(rollouts, 1))  # none of rank 0
    merged = ScoreShare.merge([rewarder.score(rollouts) for rewarder in ranks], len(rollouts))
    assert merged.values.tolist() == [108.0, 120.0, 2.0, 3.0, 11.0]
    assert len(calls.read_text().splitlines()) == 5
    for rewarder in ranks:
        rewarder.close()


def test_only_rewards_with_a_text_part_can_begin(make_model, make_rollouts, tiny_qwen2):
    model = {"kind": "reward_model", "model": make_model(0)}
    rules = {"kind": "rules", "rules": [LENGTH]}
    assert not reward(**model).scores_texts
    assert not reward(kind="sum", parts=[{"source": model}]).scores_texts
    assert reward(**rules).scores_texts
    both = reward(kind="sum", parts=[{"source": model}, {"source": rules}])
    assert both.scores_texts
    rollouts = grouped(make_rollouts, [0, 0, 1, 2, 2])
    for source in (reward(**model), both):
        late = Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks()).score(rollouts)
        rewarder = Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks())
        rewarder.begin(of_prompts(rollouts, 2))
        assert_same_share(rewarder.score(rollouts), late)


class Pairwise(Judge):
    """A judge with a model of its own that compares the responses to a prompt: how many others are longer."""

    compares = True

    def judge_group(self, samples):
        assert len({sample.prompt for sample in samples}) == 1
        return [Score(float(sum(len(o.response) > len(s.response) for o in samples))) for s in samples]


def test_a_judge_that_compares_gets_one_prompts_samples_at_a_time(make_texts, make_model, tiny_qwen2, monkeypatch):
    monkeypatch.setattr(Rewarder, "_load", lambda self, source: Pairwise())
    ids = np.array(IDS)
    rollouts = replace(make_texts(*TEXTS).take(np.arange(5)[::-1]), prompt_ids=ids[:, 0], sample_ids=ids[:, 1])
    shuffled = rollouts.take(np.array([3, 0, 4, 2, 1]))
    model = {"kind": "reward_model", "model": make_model(0), "retokenize": True}
    rewarder = Rewarder(reward(**model), ScorerConfig(), tiny_qwen2, None, Ranks())
    assert rewarder.score(shuffled).values.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_an_error_in_the_background_surfaces_when_the_step_is_scored(make_early, monkeypatch):
    rewarder, rollouts, _ = make_early()

    def broken(self, sample):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(RulesJudge, "_judge_one", broken)
        rewarder.begin(rollouts)
        with pytest.raises(MemoryError, match="no room"):
            rewarder.score(rollouts)
    assert len(rewarder.score(rollouts).values) == 5
