"""A virtual clock, and the clock of the pool's process, which may stand still or jump."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Timeline:
    """What happens when. `trace` collects a line for each note."""

    def __init__(self, trace: list[str] | None) -> None:
        self.now = 0.0
        self._trace = trace
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._num_acts = 0
        self._stalled_until, self._jumped = 0.0, 0.0

    @property
    def pool_now(self) -> float:
        """On the clock of the pool's process."""
        return self.now + self._jumped

    def after(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Do it then. Acts of one time keep their order."""
        self._num_acts += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._num_acts, act, args))

    def arrive(self, act: Callable[..., None], *args: Any) -> None:
        """Do it in the pool's process, which may stand still."""
        if self.now < self._stalled_until:
            self.after(self._stalled_until - self.now, self.arrive, act, *args)
        else:
            act(*args)

    def go_on(self) -> None:
        """The next act."""
        self.now, _, act, args = heapq.heappop(self._agenda)
        act(*args)

    def stall(self, seconds: float) -> None:
        """The pool's process stands still."""
        self._stalled_until = max(self._stalled_until, self.now + seconds)
        self.note("fault", f"the pool stands still until {self._stalled_until:.1f}")

    def jump(self, seconds: float) -> None:
        """The pool's clock jumps ahead."""
        self._jumped += seconds
        self.note("fault", f"the pool's clock jumps {seconds:g} s ahead")

    def note(self, kind: str, what: Any) -> None:
        """A line of the trace."""
        if self._trace is not None:
            self._trace.append(f"{self.now:8.2f} {kind:8} {what if isinstance(what, str) else as_text(what)}")


def as_text(command: Any) -> str:
    """A command on one line."""
    leases = getattr(command, "leases", None)
    if leases is None:
        return repr(command)
    return f"Send(member={command.member}, leases={[(lease.id, lease.keys) for lease in leases]})"
