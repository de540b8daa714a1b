"""Reward functions that compare the responses to a prompt, and that read columns of the data."""

import pytest
from pydantic import ValidationError

from rayrlhf.rewards import FunctionReward, RewardError, SampleText

GOOD, BAD = SampleText("q", "good", "a", True), SampleText("q", "bad", None, False)


def scores(judged) -> list[float | None]:
    return [result.value for result in judged]


def test_a_function_that_compares_is_called_once_with_the_prompt_and_all_its_responses(start):
    judge = start(
        """
        def f(prompt, response, gold_answer, finished, category):
            assert (prompt, gold_answer, finished, category) == ("q", "a", [True, False, True], "art")
            return [sorted(response).index(each) for each in response]
        """,
        columns=["category"],
        compares=True,
    )
    group = [
        SampleText("q", text, "a", finished, {"category": "art"})
        for text, finished in (("b", True), ("c", False), ("a", True))
    ]
    assert scores(judge.judge_group(group)) == [1.0, 2.0, 0.0]
    first, second = judge.submit([group, group])
    assert scores(first.result()) == scores(second.result()) == [1.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("misbehavior", "reason"),
    [
        ("raise ValueError", "raised ValueError"),
        ("return [1.0]", "a group has another number of scores than responses"),
        ("return 1.0", "a group's scores are a float, not a list"),
        ("return [1.0, None, 2.0]", "the score is None"),
        ("return [1.0, float('nan'), None]", "the score is NaN"),
        ("import os; os._exit(1)", "the process exited with code 1"),
        ("while True: pass", "timed out after 0.5 s"),
    ],
)
def test_a_group_that_fails_is_rejected_whole_and_asked_for_again_whole(start, tmp_path, misbehavior, reason):
    judge = start(
        f"""
        def f(prompt, response):
            with open({str(tmp_path / "sizes")!r}, "a") as file:
                print(len(response), file=file)
            if prompt == "bad":
                {misbehavior}
            return [len(each) for each in response]
        """,
        compares=True,
        timeout_s=0.5,
        num_retries=1,
    )
    bad, good = ([SampleText(prompt, text, None, True) for text in ("a", "bb", "ccc")] for prompt in ("bad", "good"))
    failed, scored = (future.result() for future in judge.submit([bad, good]))
    assert [(result.value, result.reason) for result in failed] == [(None, reason)] * 3
    assert scores(scored) == [1.0, 2.0, 3.0]
    assert (tmp_path / "sizes").read_text().split() == ["3"] * 3


def test_an_async_function_may_compare(start):
    judge = start(
        "import asyncio\nasync def f(response):\n    await asyncio.sleep(0)\n    return [len(r) for r in response]",
        compares=True,
    )
    assert scores(judge.judge_group([GOOD, BAD])) == [4.0, 3.0]


def test_a_function_compares_or_is_batched():
    with pytest.raises(ValidationError, match="set only one of them"):
        FunctionReward(path="a.py:f", compares=True, batched=True)


@pytest.mark.parametrize("batched", [False, True])
def test_columns_of_the_data_reach_a_function_by_name(start, batched):
    judge = start(
        f"""
        def f(category, **others):
            assert set(others) == {{"prompt", "response", "gold_answer", "finished", "answer-key"}}
            assert category {"== ['art', None]" if batched else "in ('art', None)"}
            return {"[1.0, 1.0]" if batched else "1.0"}
        """,
        columns=["category", "answer-key"],
        batched=batched,
    )
    rows = [SampleText("q", "r", None, True, {"category": kind, "answer-key": {"a": [1]}}) for kind in ("art", None)]
    assert scores(judge.judge(rows)) == [1.0, 1.0]


def test_a_parameter_that_nobody_gives_is_refused_with_the_columns_that_are_there(start):
    with pytest.raises(RewardError, match="missing a required argument: 'kind'") as caught:
        start("def f(response, kind): return 1", columns=["category"])
    assert "prompt, response, gold_answer, finished, category by name" in str(caught.value)
    assert "data.columns" in str(caught.value)
