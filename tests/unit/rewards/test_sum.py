"""Sums of rewards: weights, parts, rejections, names."""

import pytest
from pydantic import ValidationError

from rayrlhf.config import Config, ConfigError, parse_config
from rayrlhf.rewards import Reward, Score, SumReward

RULES = {"kind": "rules", "rules": [{"kind": "length", "max": 4}, {"kind": "regex", "pattern": "x"}]}
FUNCTION = {"kind": "function", "path": "mine.py:f"}


class Holder(Config):
    source: Reward


def make(*parts) -> SumReward:
    return SumReward.model_validate({"parts": list(parts)})


def test_a_sum_weighs_its_parts_and_reports_each():
    reward = make({"weight": 0.5, "source": RULES}, {"weight": -2, "source": FUNCTION, "name": "mine"})
    judged = reward.combine([Score(3.0, parts={"length": 1.0, "regex": 0.0}), Score(0.25)])
    assert judged.value == 0.5 * 3.0 - 2 * 0.25
    assert judged.parts == {"rules": 3.0, "rules/length": 1.0, "rules/regex": 0.0, "mine": 0.25}
    assert tuple(judged.parts) == reward.part_names


def test_a_response_that_one_part_rejects_is_rejected_by_the_sum():
    judged = make({"source": RULES}, {"source": FUNCTION}).combine([Score(1.0), Score(None, "raised ValueError", "…")])
    assert (judged.value, judged.reason, judged.trace) == (None, "function: raised ValueError", "…")


def test_several_reward_models_need_names_of_their_own():
    one, other = ({"source": {"kind": "reward_model", "model": name}} for name in "ab")
    with pytest.raises(ValidationError, match="'reward_model' is there 2 times"):
        make(one, other)
    assert make(one, {**other, "name": "other"}).part_names == ("reward_model", "other")


def test_paths_of_all_parts_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    reward = make({"source": FUNCTION}, {"source": {"kind": "reward_model", "model": "model"}}).resolved()
    assert reward.parts[0].source.path == f"{tmp_path}/mine.py:f"
    assert reward.parts[1].source.model == f"{tmp_path}/model"


def test_errors_name_the_setting_and_not_the_tags_on_the_way_to_it():
    tree = {"kind": "sum", "parts": [{"source": {"kind": "rules", "rules": [{"kind": "length", "max": 0}]}}]}
    with pytest.raises(ConfigError, match=r"^run: 1 setting to fix\n  source\.parts\.0\.source\.rules\.0\.max: "):
        parse_config(Holder, {"source": tree}, "run")


def test_an_unknown_kind_is_answered_with_all_kinds():
    with pytest.raises(ConfigError, match="'reward_model', 'function', 'http', 'rules', 'sum'"):
        parse_config(Holder, {"source": {"kind": "judge"}}, "run")
