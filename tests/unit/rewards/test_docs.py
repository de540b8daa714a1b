"""The functions of docs/rewards.md, run as they stand there."""

import re
from pathlib import Path

import pytest

from rayrlhf.rewards import FunctionReward, SampleText

PAGE = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8")
CODE = "\n\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
RESPONSES = ["it is two or three", "2", "is it 2?", "maybe so or not"]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("score", {"arguments": {"bonus": 0.5}}, [0.5, 1.5, 1.5, 0.5]),
        ("pairwise", {"compares": True}, [0.0, 1.0, 2 / 3, 1 / 3]),
        ("tournament", {"compares": True}, [0.0, 2.0, 1.0, 0.0]),
        ("best_of_n", {"compares": True}, [0.0, 1.0, 0.0, 0.0]),
        ("by_steps", {}, [0.25, 1.0, 1.0, 0.25]),
        ("by_category", {}, [0.0, 2.0, 0.0, 0.0]),
    ],
)
def test_a_function_of_the_page_scores_as_the_page_says(tmp_path, name, settings, expected):
    (tmp_path / "my_rewards.py").write_text(CODE, encoding="utf-8")
    columns = {"category": "hard", "answer_key": {"accepted": ["2", "two"]}}
    judge = FunctionReward(path=f"{tmp_path}/my_rewards.py:{name}", **settings).start(list(columns))
    group = [SampleText("1 + 1?", response, "2", True, columns) for response in RESPONSES]
    judged = judge.judge_group(group)
    assert [result.value for result in judged] == pytest.approx(expected), [result.trace for result in judged]
    judge.close()


def test_a_tournament_of_any_size_has_one_winner():
    scope: dict = {}
    exec(CODE, scope)
    for size in range(1, 10):
        rounds = scope["tournament"]("?", ["x " * (1 + (11 * index) % size) for index in range(size)])
        assert rounds.index(max(rounds)) == 0
        assert size == 1 or sorted(rounds)[-2] < max(rounds)
