"""A process that runs a reward function, from the outside: started, asked, killed when it is late, started again.

Requests travel pickled; answers come back as JSON, because they are made where someone else's code runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Literal

import psutil

from rayrlhf.rewards import child
from rayrlhf.rewards.base import RewardError, SampleText, Score
from rayrlhf.rewards.calls import CallError
from rayrlhf.rewards.secrets import is_secret_name

KILL_DELAY_S = 1.0
"""What a process that awaits many calls has over `timeout_s`, to say itself which of them were late."""

GARBLED = "the process answered something other than scores: it must not write to the descriptors that it inherits"
MAX_MESSAGE_BYTES = 1 << 28
PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class ChildSetup:
    """What a process is started for."""

    path: str
    arguments: dict[str, Any]
    columns: tuple[str, ...]
    mode: Literal["single", "batch", "group"]
    """What a call of the function is given: one sample, several, or all of one prompt."""
    timeout_s: float
    memory_gib: float | None = None


class Child:
    """One process, replaced whenever it dies; used by one thread at a time, and closed by any."""

    def __init__(self, setup: ChildSetup, start_s: float, variables: Sequence[str] = ()) -> None:
        """variables: names of environment variables that it gets though they look like secrets."""
        self._setup, self._start_s, self._variables = setup, start_s, variables
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._awaits = False
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> bool:
        """Start the process and import the function; True if it awaits several samples together.

        Raises RewardError if it cannot be used.
        """
        ours, theirs = Pipe()
        os.set_blocking(ours.fileno(), False)  # what waits has a deadline
        with theirs, self._lock:
            if self._closed:
                raise RewardError("the reward was closed")
            self._process = subprocess.Popen(
                # -P: the file's folder does not come first, where modules have names like `http`.
                [sys.executable, "-P", child.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # never written to: the child ends when it closes, so when we die
                start_new_session=True,  # so that what the function itself starts can be killed with it
                env=_environment(self._variables),
            )
        self._connection = ours
        try:
            hello = self._ask(asdict(self._setup), self._start_s)
        except CallError as error:
            raise RewardError(
                f"reward.source.path {self._setup.path!r}: importing the function failed: {error.score.reason}; "
                "fix the module, or raise start_s if it needs longer"
            ) from None
        if problem := hello.get("problem"):
            self.kill()
            raise RewardError(f"reward.source.path {self._setup.path!r}: {problem}")
        self._awaits = hello["asynchronous"] and self._setup.mode == "single"
        return self._awaits

    def call(self, samples: Sequence[SampleText]) -> list[Score]:
        """The function's scores. Raises CallError if the process crashed or was late; the next call has a new one."""
        if self._process is None:
            try:
                self.start()
            except RewardError as error:
                raise CallError("a new process could not load the function", str(error)) from None
        rows = [{name: getattr(sample, name) for name in child.FIELDS} | dict(sample.columns) for sample in samples]
        answer = self._ask(rows, self._setup.timeout_s, KILL_DELAY_S if self._awaits else 0.0)
        try:
            results = [Score(**result) for result in answer["results"]]
        except (KeyError, TypeError):
            results = []
        if len(results) != len(samples):
            self.kill()
            raise CallError(GARBLED)
        return results

    def _ask(self, message: Any, limit_s: float, delay_s: float = 0.0) -> dict[str, Any]:
        assert self._connection is not None
        try:
            until = time.monotonic() + limit_s + delay_s
            _send(self._connection.fileno(), message, until)
            answer = json.loads(_received(self._connection.fileno(), until))
        except TimeoutError:
            self.kill()
            raise CallError(f"timed out after {limit_s:g} s") from None
        except (EOFError, OSError):
            raise CallError(self._cause_of_death()) from None
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self.kill()
            raise CallError(GARBLED)
        return answer

    def _cause_of_death(self) -> str:
        assert self._process is not None
        process, has_ended = self._process, _has_ended(self._process.pid, 1.0)
        self.kill()  # before anything reaps it: what it started has its number as a group
        code = process.returncode
        if not has_ended:
            return "the process closed its connection"
        if code < 0:
            return f"the process was killed by signal {-code} ({signal.strsignal(-code)})"
        return f"the process exited with code {code}"

    def kill(self) -> None:
        """End the process and what it started; the next call has a new one."""
        with self._lock:
            if self._process is None or self._connection is None:
                return
            _kill_tree(self._process.pid)
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._connection.close()
            self._process = self._connection = None

    def close(self) -> None:
        """End the process, in a call of another thread too, and start no other."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                _kill_tree(self._process.pid)


def _environment(variables: Sequence[str]) -> dict[str, str]:
    """Ours, without what looks like a secret and is not among `variables`."""
    kept = {name: value for name, value in os.environ.items() if name in variables or not is_secret_name(name)}
    return kept | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _send(descriptor: int, message: Any, until: float) -> None:
    """What a `Connection` receives as `message`. Raises TimeoutError once `time.monotonic()` says `until`: who does not
    read leaves us with all that the pipe does not hold."""
    content = pickle.dumps(message)
    size = struct.pack("!i", len(content)) if len(content) < 1 << 31 else struct.pack("!iQ", -1, len(content))
    rest, space = memoryview(size + content), select.poll()
    space.register(descriptor, select.POLLOUT)
    while rest:
        if not space.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        rest = rest[os.write(descriptor, rest) :]


def _received(descriptor: int, until: float) -> bytes:
    """The next message of a `Connection`, whole. Raises TimeoutError once `time.monotonic()` says `until`, whatever
    part of the message is there: it comes from where someone else's code runs."""
    (size,) = struct.unpack("!i", _exactly(descriptor, 4, until))
    if size == -1:
        (size,) = struct.unpack("!Q", _exactly(descriptor, 8, until))
    if not 0 <= size <= MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {size} bytes")
    return _exactly(descriptor, size, until)


def _exactly(descriptor: int, size: int, until: float) -> bytes:
    data, arrivals = bytearray(), select.poll()
    arrivals.register(descriptor, select.POLLIN)
    while len(data) < size:
        if not arrivals.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        piece = os.read(descriptor, min(size - len(data), PIECE_BYTES))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _has_ended(pid: int, limit_s: float) -> bool:
    """Whether a process of ours ends within the limit. It is not reaped."""
    until = time.monotonic() + limit_s
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _kill_tree(pid: int) -> None:
    """SIGKILL to a process, its group, and what it started that left the group."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
