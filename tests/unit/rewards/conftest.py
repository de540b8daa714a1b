"""What tests of reward functions share."""

import textwrap

import pytest

from rayrlhf.rewards import FunctionReward


@pytest.fixture
def start(tmp_path):
    """`start(source, **settings)`: a judge by the function `f` of that source."""
    judges = []

    def make(source: str, columns=(), **settings):
        file = tmp_path / "mine.py"
        file.write_text(textwrap.dedent(source), encoding="utf-8")
        settings = {"timeout_s": 20.0, "num_retries": 0, "max_concurrency": 2} | settings
        judges.append(FunctionReward(path=f"{file}:f", **settings).start(columns))
        return judges[-1]

    yield make
    for judge in judges:
        judge.close()
