"""A reward that is a Python function of the user's own, run in processes that may crash or hang."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from rayrlhf.rewards.base import SampleText, Score
from rayrlhf.rewards.callers import Callers
from rayrlhf.rewards.calls import CallConfig, ask
from rayrlhf.rewards.children import Child, ChildSetup
from rayrlhf.rewards.text import TextJudge, TextReward

NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
PATH = re.compile(rf"(.+\.py|{NAME}):{NAME}")


class FunctionReward(TextReward, CallConfig):
    """`f(prompt=…, response=…, gold_answer=…, finished=…, **arguments)` → a number.

    The function takes any of these four and of `data.columns` by name, as many as it likes, and may be `async`. It runs
    in processes of its own: one that crashes, or takes longer than `timeout_s`, is killed and replaced. What it raises,
    and anything that is no finite number, rejects the response with that reason.
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
    compares: bool = False
    """The function is called once per prompt: `response` and `finished` are lists, all else is the prompt's. It returns
    a number for each response; without one for each, all of the prompt's responses are rejected."""
    environment: tuple[str, ...] = ()
    """Names of environment variables that the function needs although they look like secrets, such as `OPENAI_API_KEY`:
    its processes get no others of that kind."""
    memory_gib: PositiveFloat | None = None
    """Memory that each process may use: beyond it the function gets a MemoryError."""
    start_s: PositiveFloat = 60.0
    """For a process to start and to import the function, before `timeout_s` of its first call begins.

    Each of `max_concurrency` processes runs one call at a time. A function that is `async` and given single samples
    has one process, which awaits `max_concurrency` calls together.
    """

    @model_validator(mode="after")
    def _has_one_mode(self) -> FunctionReward:
        if self.compares and self.batched:
            raise ValueError("compares=true passes one prompt's responses, batched=true any rows: set only one of them")
        return self

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

    def start(self, columns: Sequence[str] = ()) -> FunctionJudge:
        return FunctionJudge(self, columns)


class FunctionJudge(TextJudge):
    """The function in its processes. Raises RewardError if it cannot be loaded, or requires a parameter that
    it is not given."""

    def __init__(self, config: FunctionReward, columns: Sequence[str]) -> None:
        self.compares = config.compares
        mode: Literal["single", "batch", "group"] = (
            "group" if config.compares else "batch" if config.batched else "single"
        )
        setup = ChildSetup(config.path, config.arguments, tuple(columns), mode, config.timeout_s, config.memory_gib)
        first = Child(setup, config.start_s, config.environment)
        awaits_together = first.start()
        num_children = 1 if awaits_together else config.max_concurrency
        self._children = [first, *(Child(setup, config.start_s, config.environment) for _ in range(num_children - 1))]
        # Last in, first out: with few calls, few processes are started.
        self._idle: LifoQueue[Child] = LifoQueue()
        for child in reversed(self._children):
            self._idle.put(child)
        max_rows = config.batch_size if config.batched else config.max_concurrency if awaits_together else 1
        asked = functools.partial(ask, call=self._call, num_retries=config.num_retries, whole=config.compares)
        super().__init__(Callers(asked, num_children, max_rows))

    def _call(self, samples: Sequence[SampleText]) -> list[Score]:
        child = self._idle.get()
        try:
            return child.call(samples)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        super().close()
        for child in self._children:
            child.close()
        idle: list[Child] = []
        with contextlib.suppress(Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for child in idle:
            child.kill()
            self._idle.put(child)
