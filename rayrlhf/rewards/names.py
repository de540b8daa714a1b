"""Names of a reward's parts, under which their scores are reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def check_names_differ(names: Sequence[str]) -> None:
    """Raises ValueError for two parts with one name: their metrics could not be told apart."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name!r} is there {count} times: give each a name of its own")
