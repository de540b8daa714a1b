"""What the tests of the data plane share: records as a reader gives them, cleaned; files, read to the end."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rayrlhf.data.cleaning.rules import Cleaning
from rayrlhf.data.ingest.account import Account, DataError, RejectedFile
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.ingest.records import Kind, Origin, Record
from rayrlhf.data.ingest.sources import Source


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
        if together[0].origin.siblings == 0:
            account.keep_row()
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


class Remembered(RejectedFile):
    """What is written to the file of rejected rows, in memory."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.rows: list[tuple[int, str, str, Any]] = []

    def write(self, origin: Origin, reason: str, detail: str, row: Any) -> None:
        self.rows.append((origin.place, reason, detail, row))


@dataclass
class Read:
    """What came of reading: records, the closed account, and (place, reason, detail, row) of rejected rows."""

    records: list[Any]
    account: Account
    rejected: list[tuple[int, str, str, Any]]

    @property
    def reasons(self) -> list[tuple[int, str]]:
        return [(place, reason) for place, reason, _, _ in self.rejected]


@pytest.fixture(scope="session")
def read() -> Callable[..., Read]:
    """`read(path or list of sources, kind, **settings)` reads all there is and closes the books."""

    def run(sources: Any, kind: Kind = "answers", **settings: Any) -> Read:
        if not isinstance(sources, list):
            sources = [{"path": str(sources), **settings} if isinstance(sources, str | Path) else sources]
        remembered = Remembered()
        account = Account(rejected_file=remembered)
        records = []
        for record in read_records([TypeAdapter(Source).validate_python(source) for source in sources], kind, account):
            account.keep(record)
            records.append(record)
        if records:
            account.finish()
        else:  # the books are checked before it says that nothing is left
            with pytest.raises(DataError, match="no usable row is left"):
                account.finish()
        assert account.rows == account.kept + len(remembered.rows)
        return Read(records, account, remembered.rows)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """`file(content, name)` writes bytes, text, or a list as JSON lines, and gives the path."""

    def write(content: Any, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write
