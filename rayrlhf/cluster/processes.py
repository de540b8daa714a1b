"""Finds and stops exactly the processes that we started.

Process ids are reused, and `ray stop` stops every Ray on the machine. So a process is recorded with its creation time,
and all its descendants inherit a mark, unique to one cluster, in their environment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

MARK = "RAYRLHF_CLUSTER_MARK"


@dataclass(frozen=True)
class ProcessId:
    """A process, identified even if its pid is reused. `created`: seconds, Unix time."""

    pid: int
    created: float

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessId:
        """Raises psutil.NoSuchProcess if it has ended."""
        return cls(process.pid, process.create_time())

    def find(self) -> psutil.Process | None:
        """The process, if it still runs. Creation times may differ by 1 s: they move when the clock is set."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
        except psutil.NoSuchProcess:
            return None
        return process if same and _alive(process) else None


def _alive(process: psutil.Process) -> bool:
    """False for zombies too: without an init process, as in some containers, nothing reaps them."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def family(roots: Iterable[ProcessId], mark: str) -> list[psutil.Process]:
    """Living `roots`, all their descendants, and every process of this machine that carries `mark`.

    The process tree finds Ray's workers, whose titles overwrite their environment; the mark finds orphans.
    """
    found = {process for root in roots if (process := root.find())}
    found |= {process for process in psutil.process_iter() if _carries(process, mark)}
    for process in list(found):
        try:
            found |= set(process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    return [process for process in found if _alive(process)]


def _wait(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while (alive := [process for process in processes if _alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _end(processes: Sequence[psutil.Process], timeout_s: float, *, kill: bool) -> list[psutil.Process]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill() if kill else process.terminate()
    return _wait(processes, timeout_s)


def stop(root: ProcessId, mark: str, others: Sequence[ProcessId] = (), grace_s: float = 10.0) -> int:
    """End `root`, which ends its children in order, then whatever is left. Returns the number of processes.

    Waits until all have ended, at most `grace_s` + 6 s. Raises TimeoutError naming those that have not.
    """
    members = family([root, *others], mark)
    if first := root.find():
        _end([first], grace_s, kill=False)
    for kill in (False, True):
        # Look again: processes that ended may have left new orphans.
        alive = [*{*family([root, *others], mark), *members}]
        alive = _end([process for process in alive if _alive(process)], 3.0, kill=kill)
    if alive:
        raise TimeoutError(f"processes {sorted(process.pid for process in alive)} did not end after SIGKILL")
    return len(members)
