"""A process that runs a reward function, from the inside: `python child.py DESCRIPTOR`.

It ends when its standard input closes, in the middle of a call too: when the process that started it is gone.

Run as a file, and with the standard library alone: so it starts at once and is small, and what is killed is cheap to
replace. Samples are dictionaries with FIELDS and the columns of the data, results with the
fields of `Score`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import inspect
import json
import operator
import os
import pkgutil
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FIELDS = ("prompt", "response", "gold_answer", "finished")
OF_RESPONSES = ("response", "finished")
"""Which of FIELDS differ between the samples of one prompt."""
MAX_TRACE_CHARACTERS = 4000
PR_SET_CHILD_SUBREAPER = 36
FLOAT32_MAX = 3.4028234663852886e38

Result = dict[str, Any]
"""`{"value": …}`, with `steps` if there are any, or a `reason` and a `trace` with a value of None."""


class LoadError(Exception):
    """The function is not there, or cannot be called as rewards are."""


def load(path: str) -> Callable[..., Any]:
    """The function that `file.py:name` or `package.module:name` names. Raises LoadError."""
    place, _, name = path.rpartition(":")
    try:
        if not place.endswith(".py"):
            function = pkgutil.resolve_name(path)
        else:
            file = Path(place).absolute()
            if not file.is_file():
                raise LoadError("no such file")
            sys.path.insert(0, str(file.parent))  # for what lies beside it
            # A name of its own: the file may be called as a module is that others import.
            spec = importlib.util.spec_from_file_location(f"reward_function_{file.stem}", file)
            assert spec is not None and spec.loader is not None
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look there
            spec.loader.exec_module(module)
            function = operator.attrgetter(name)(module)
    except (ImportError, AttributeError) as error:
        raise LoadError(f"{error}\n{traceback.format_exc()}") from None
    if not callable(function):
        raise LoadError(f"{name} is a {type(function).__name__}, not a function")
    return function


def taken_fields(function: Callable[..., Any], arguments: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """Which of FIELDS and `columns` the function takes.

    Raises LoadError if it needs more, or takes not all of `arguments`.
    """
    given = [*FIELDS, *columns]
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C, without one
        return given
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    taken = [name for name in given if name in signature.parameters or inspect.Parameter.VAR_KEYWORD in kinds]
    try:
        signature.bind(**dict.fromkeys(taken), **arguments)
    except TypeError as error:
        raise LoadError(
            f"it cannot be called with {', '.join([*taken, *arguments])}: {error}; a reward function takes any of "
            f"{', '.join(given)} by name, and all of `arguments`; name a column of the data in data.columns to give it"
        ) from None
    return taken


class Scorer:
    """Calls the function; whatever it does becomes a score or a rejection."""

    def __init__(
        self,
        path: str,
        arguments: dict[str, Any],
        columns: Sequence[str],
        mode: str,
        timeout_s: float,
        memory_gib: float | None = None,
    ) -> None:
        self._arguments, self._timeout_s = arguments, timeout_s
        if memory_gib is not None:
            limit = int(memory_gib * 2**30)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        self._runner = asyncio.Runner()  # one for all calls, so that a function may keep its connections
        self._function = load(path)
        self._fields = taken_fields(self._function, arguments, columns)
        called = type(self._function).__call__  # of an object that is called like a function
        self.asynchronous = any(map(inspect.iscoroutinefunction, (self._function, called)))
        singles = self._score_awaited if self.asynchronous else self._score_singles
        self.score = {"single": singles, "batch": self._score_batch, "group": self._score_group}[mode]
        """list of samples → one Result per sample"""

    def _score_singles(self, samples: list[dict[str, Any]]) -> list[Result]:
        return [self._score_one(sample) for sample in samples]

    def _score_one(self, sample: dict[str, Any]) -> Result:
        try:
            return checked(self._result({name: sample[name] for name in self._fields}))
        except BaseException as error:
            return raised(error)

    def _score_batch(self, samples: list[dict[str, Any]]) -> list[Result]:
        return self._score_list(
            {name: [sample[name] for sample in samples] for name in self._fields}, len(samples), "batch"
        )

    def _score_group(self, samples: list[dict[str, Any]]) -> list[Result]:
        fields = {
            name: [sample[name] for sample in samples] if name in OF_RESPONSES else samples[0][name]
            for name in self._fields
        }
        results = self._score_list(fields, len(samples), "group")
        # The others were compared with the response that has no score.
        failed = [result for result in results if result["value"] is None]
        return failed[:1] * len(samples) or results

    def _score_list(self, fields: dict[str, Any], num_samples: int, given: str) -> list[Result]:
        try:
            scores = self._result(fields)
        except BaseException as error:
            return [raised(error)] * num_samples
        if callable(getattr(scores, "tolist", None)):
            scores = scores.tolist()
        if not isinstance(scores, (list, tuple)):
            return [rejected(f"a {given}'s scores are a {type(scores).__name__}, not a list")] * num_samples
        if len(scores) != num_samples:
            return [rejected(f"a {given} has another number of scores than responses")] * num_samples
        return [checked(score) for score in scores]

    def _score_awaited(self, samples: list[dict[str, Any]]) -> list[Result]:
        return self._runner.run(self._score_together(samples))

    async def _score_together(self, samples: list[dict[str, Any]]) -> list[Result]:
        return list(await asyncio.gather(*(self._await_one(sample) for sample in samples)))

    async def _await_one(self, sample: dict[str, Any]) -> Result:
        deadline = asyncio.timeout(self._timeout_s)
        try:
            async with deadline:
                fields = {name: sample[name] for name in self._fields}
                return checked(await self._function(**fields, **self._arguments))
        except BaseException as error:
            if deadline.expired():
                return rejected(f"timed out after {self._timeout_s:g} s", traced(error))
            return raised(error)

    def _result(self, fields: dict[str, Any]) -> Any:
        result = self._function(**fields, **self._arguments)
        return self._runner.run(_wait_for(result)) if inspect.isawaitable(result) else result


async def _wait_for(result: Any) -> Any:
    return await result


def raised(error: BaseException) -> Result:
    """The rejection of a row that an exception came for."""
    return rejected(f"raised {type(error).__name__}", traced(error))


def rejected(reason: str, trace: str = "") -> Result:
    return {"value": None, "reason": reason, "trace": trace}


def checked(value: Any) -> Result:
    """What someone else's code gave as a score: a finite number (True is 1), or one with those of single steps,
    `{"score": …, "steps": [[end, score], …]}`; or a rejection that says what it was.
    """
    return checked_steps(value) if isinstance(value, dict) else checked_number(value)


def checked_steps(value: dict[str, Any]) -> Result:
    """The whole response's score, which is 0 if it is not there, and those of its steps, as their sum and the steps."""
    steps, unknown = value.get("steps"), sorted(map(str, value.keys() - {"score", "steps"}))
    if unknown or not isinstance(steps, (list, tuple)):
        return rejected("the score is a dict other than {score, steps: [[end, score], …]}")
    results = [checked_number(value.get("score", 0.0))]
    ends: list[int] = []
    for step in steps:
        if not isinstance(step, (list, tuple)) or len(step) != 2:
            return rejected("a step is not [end, score]")
        end = step[0].item() if callable(getattr(step[0], "item", None)) else step[0]
        if not isinstance(end, int) or isinstance(end, bool) or end < 1:
            return rejected("a step's end is not a number of characters, 1 or more")
        ends.append(end)
        results.append(checked_number(step[1]))
    for result in results:
        if result["value"] is None:
            return result
    values = [result["value"] for result in results]
    return checked_number(sum(values)) | {"steps": [list(pair) for pair in zip(ends, values[1:], strict=True)]}


def checked_number(value: Any) -> Result:
    """A finite number, or a rejection. Scalars of numpy and torch count as numbers."""
    if not isinstance(value, (str, bytes)) and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (ValueError, RuntimeError):  # an array of several numbers
            return rejected(f"the score is a {type(value).__name__} of several numbers")
    if value is None:
        return rejected("the score is None")
    if not isinstance(value, (bool, int, float)):
        return rejected(f"the score is a {type(value).__name__}, not a number")
    if value != value:
        return rejected("the score is NaN")
    if abs(value) > FLOAT32_MAX:
        return rejected("the score is infinite, or larger than a float32")
    return {"value": float(value)}


def traced(error: BaseException) -> str:
    """The end of the traceback, which names what was raised and where."""
    return "".join(traceback.format_exception(error))[-MAX_TRACE_CHARACTERS:]


def _adopt_orphans() -> None:
    """Processes that the function starts stay below this one when theirs end, so that they are found and killed."""
    with contextlib.suppress(OSError, AttributeError):  # Linux has it
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_parent(lifeline: int) -> None:
    """Wait until the other end is closed, then kill this process and whatever the function has started."""
    while os.read(lifeline, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(descriptor: int) -> None:
    """Load the function that the first message names, then answer one message after another."""
    _adopt_orphans()
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    lifeline = os.dup(0)
    with open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    try:
        scorer = Scorer(**connection.recv())
    except LoadError as error:
        return _answer(connection, {"problem": str(error)})
    except BaseException as error:
        return _answer(connection, {"problem": f"importing it raised {type(error).__name__}\n{traced(error)}"})
    _answer(connection, {"asynchronous": scorer.asynchronous})
    while True:
        try:
            samples = connection.recv()
        except EOFError:
            return
        _answer(connection, {"results": scorer.score(samples)})


def _answer(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
