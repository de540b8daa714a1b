"""What the tests of the data plane share: records as a reader gives them, cleaned."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest

from rayrlhf.data.account import Account
from rayrlhf.data.cleaning import Cleaning
from rayrlhf.data.records import Record


@dataclass
class Watched(Account):
    """An account that remembers why each record went."""

    why: list[tuple[int, str, str]] = field(default_factory=list)

    def reject(self, record: Record, reason: str, detail: str = "") -> None:
        self.why.append((record.origin.place, reason, detail))
        super().reject(record, reason, detail)


def _read(records: Iterable[Record], account: Account) -> Iterator[Record]:
    """Records as a reader gives them: told to the account row by row."""
    for (source, _), row in groupby(records, key=lambda record: (record.origin.source, record.origin.place)):
        together = list(row)
        account.read(source, 1, 0)
        account.made(together)
        yield from together


@pytest.fixture(scope="session")
def clean() -> Callable[..., Any]:
    """`clean(records, **settings)`: (records that stay, [(line, reason, detail) of the others])."""

    def run(records: Sequence[Record], **settings: Any) -> tuple[list[Record], list[tuple[int, str, str]]]:
        account = Watched()
        kept = []
        for record in Cleaning(**settings).clean(_read(records, account), account):
            account.keep(record)
            kept.append(record)
        if kept:
            account.finish()
        assert len(kept) + len(account.why) == len(records)
        return kept, account.why

    return run
