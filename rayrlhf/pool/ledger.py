"""The ledger: what became of every sample that was requested. One writer, and every sample ends once.

```
pending ⇄ leased → done → trained | used | rejected (reason)
```
A sample returns to pending when its sampler is lost or its answer is not accepted. `used` is a sample that was never
meant for training: held-out evaluation, a baseline's greedy response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum

Key = tuple[int, int, int]
"""(batch id, prompt id, sample id)."""


class State(StrEnum):
    """Of a sample."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    TRAINED = "trained"
    USED = "used"
    REJECTED = "rejected"


ALLOWED: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.LEASED}),
    State.LEASED: frozenset({State.PENDING, State.DONE}),
    State.DONE: frozenset({State.TRAINED, State.USED, State.REJECTED}),
}
ENDS = (State.TRAINED, State.USED, State.REJECTED)


class LedgerError(AssertionError):
    """A sample was about to be lost or counted twice: a bug in rayrlhf, never its user's mistake."""


class Ledger:
    """States of all samples in flight, and counts of those that have ended."""

    def __init__(self) -> None:
        self._states: dict[Key, State] = {}
        self._counts: Counter[State] = Counter()
        self.reasons: Counter[str] = Counter()
        """Why samples were rejected."""

    def add(self, keys: Iterable[Key]) -> None:
        """New samples, pending. Raises LedgerError for one that is already in flight."""
        for key in keys:
            if key in self._states:
                raise LedgerError(f"sample {key} was submitted twice")
            self._states[key] = State.PENDING
            self._counts[State.PENDING] += 1

    def move(self, keys: Iterable[Key], to: State) -> None:
        """Move every sample to its next state. Raises LedgerError for a transition that is not allowed."""
        for key in keys:
            state = self._states.get(key)
            if state is None or to not in ALLOWED[state]:
                raise LedgerError(f"sample {key} is {state or 'not in flight'} and cannot become {to}")
            self._counts[state] -= 1
            self._counts[to] += 1
            if to in ENDS:
                del self._states[key]
            else:
                self._states[key] = to

    def reject(self, keys: Iterable[Key], reason: str) -> None:
        """End samples that are not trained on."""
        keys = list(keys)
        self.move(keys, State.REJECTED)
        self.reasons[reason] += len(keys)

    def state(self, key: Key) -> State | None:
        """Of a sample in flight; None if it has ended or never was."""
        return self._states.get(key)

    @property
    def counts(self) -> dict[str, int]:
        """Samples in each state, including those that have ended."""
        return {state.value: self._counts[state] for state in State}
