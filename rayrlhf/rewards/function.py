"""A reward that is a Python function of the user's own, run in processes that may crash or hang."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from queue import LifoQueue
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from rayrlhf.rewards.base import Judge, SampleText, Score, TextReward
from rayrlhf.rewards.calls import CallConfig, judge_in_calls
from rayrlhf.rewards.children import Child, ChildSetup

NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
PATH = re.compile(rf"(.+\.py|{NAME}):{NAME}")


class FunctionReward(TextReward, CallConfig):
    """`f(prompt=…, response=…, gold_answer=…, finished=…, **arguments)` → a number.

    The function takes any of these four by name, as many as it likes, and may be `async`. It runs in processes of its
    own: one that crashes, or takes longer than `timeout_s`, is killed and replaced. What it raises, and anything that
    is no finite number, rejects the response with that reason.
    """

    kind: Literal["function"] = "function"
    path: str
    """`file.py:name` or `package.module:name`; a module must be importable where the workers run."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Passed to every call, by name."""
    batched: bool = False
    """The function takes lists under the same names and returns as many numbers."""
    batch_size: PositiveInt = 32
    """Rows of one call of a batched function."""
    start_s: PositiveFloat = 60.0
    """For a process to start and to import the function, before `timeout_s` of its first call begins.

    Each of `max_concurrency` processes runs one call at a time. A function that is `async` and not batched has one
    process, which awaits `max_concurrency` calls together.
    """

    @field_validator("path")
    @classmethod
    def _names_a_function(cls, path: str) -> str:
        if not PATH.fullmatch(path):
            raise ValueError("write it as file.py:name or package.module:name")
        return path

    def resolved(self) -> Self:
        place, _, name = self.path.rpartition(":")
        if not place.endswith(".py"):
            return self
        return self.model_copy(update={"path": f"{Path(place).expanduser().absolute()}:{name}"})

    def start(self) -> FunctionJudge:
        return FunctionJudge(self)


class FunctionJudge(Judge):
    """The function in its processes. Raises RewardError when it cannot be loaded."""

    def __init__(self, config: FunctionReward) -> None:
        self._config = config
        setup = ChildSetup(config.path, config.arguments, config.batched, config.timeout_s)
        first = Child(setup, config.start_s)
        self._awaits_together = first.start() and not config.batched
        self._children = [first]
        if not self._awaits_together:
            self._children += [Child(setup, config.start_s) for _ in range(config.max_concurrency - 1)]
        # Last in, first out: with few calls, few processes are started.
        self._idle: LifoQueue[Child] = LifoQueue()
        for child in reversed(self._children):
            self._idle.put(child)

    def judge(self, samples: Sequence[SampleText]) -> list[Score]:
        config = self._config
        rows = config.batch_size if config.batched else config.max_concurrency if self._awaits_together else 1
        return judge_in_calls(samples, self._call, rows, config)

    def _call(self, samples: Sequence[SampleText]) -> list[Score]:
        child = self._idle.get()
        try:
            return child.call(samples)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        for child in self._children:
            child.kill()
