"""Prompts that two files share: equal, equal except for case and white space, or near duplicates."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from rayrlhf.data.cleaning.near_duplicates import TfidfDuplicates
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.ingest.progress import reading_progress
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.ingest.records import Record
from rayrlhf.data.ingest.sources import Source
from rayrlhf.data.tools.options import Inputs
from rayrlhf.data.tools.report import console

SHOWN = 5


@dataclass(frozen=True)
class Leak:
    """A prompt that is in two files."""

    how: str
    """`equal`, `equal but for case and space`, or `near`."""
    record: Record
    like: Record


def find_leaks(ours: Sequence[Record], theirs: Sequence[Record], near: float | None) -> list[Leak]:
    """Each prompt of `theirs` that is in `ours`, once, with the closest kind of match.

    Args:
        near: cosine of TF-IDF vectors from which two prompts are near duplicates; None looks for equal ones only.
    """
    exact = {record.prompt.key: record for record in reversed(ours)}
    loose = {_loose(record): record for record in reversed(ours)}
    leaks: list[Leak] = []
    rest: list[Record] = []
    for record in {record.prompt.key: record for record in reversed(theirs)}.values():
        if like := exact.get(record.prompt.key):
            leaks.append(Leak("equal", record, like))
        elif like := loose.get(_loose(record)):
            leaks.append(Leak("equal but for case and space", record, like))
        else:
            rest.append(record)
    if near is not None and ours and rest:
        matches = TfidfDuplicates(threshold=near).match([r.prompt.text for r in rest], [r.prompt.text for r in ours])
        leaks += [Leak("near", rest[i], ours[j]) for i, j in enumerate(matches) if j is not None]
    return sorted(leaks, key=lambda leak: leak.record.origin.place)


def leaks(inputs: Inputs, near: float | None, out: Path | None) -> int:
    """Compare every two inputs: print a table, write all leaks to `out`, return their number."""
    records: dict[str, list[Record]] = {}
    with reading_progress("data leaks", inputs.files) as advance:
        for source in inputs.sources:
            records[source.label] = _prompts(source, advance)
    table = Table(title="prompts in two files", title_justify="left")
    for heading in ("file", "is in", "prompts", "equal", "but for case and space", "near", "share"):
        table.add_column(heading, overflow="fold")
    found: list[Leak] = []
    for (ours, ours_records), (theirs, theirs_records) in itertools.combinations(records.items(), 2):
        pair = find_leaks(ours_records, theirs_records, near)
        found += pair
        distinct = len({record.prompt.key for record in theirs_records})
        counts = [sum(leak.how == how for leak in pair) for how in ("equal", "equal but for case and space", "near")]
        near_count = "not looked for" if near is None else str(counts[2])
        table.add_row(
            theirs, ours, str(distinct), str(counts[0]), str(counts[1]), near_count, f"{len(pair) / distinct:.1%}"
        )
    console.print(table)
    for leak in found[:SHOWN]:
        console.print(f"{leak.how}: {leak.record.origin} and {leak.like.origin}: {leak.record.prompt.text[:80]!r}")
    if len(found) > SHOWN:
        console.print(f"… and {len(found) - SHOWN} more" + ("" if out else "; --out FILE writes all"))
    if out is not None:
        with out.open("w", encoding="utf-8") as file:
            for leak in found:
                row = {
                    "how": leak.how,
                    "prompt": leak.record.prompt.text,
                    "at": str(leak.record.origin),
                    "like": leak.like.prompt.text,
                    "like_at": str(leak.like.origin),
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(found)


def _prompts(source: Source, advance: Callable[[int], None]) -> list[Record]:
    account = Account(advance=advance)
    records = []
    for record in read_records([source], "prompts", account):
        account.keep(record)
        records.append(record)
    account.finish()
    return records


def _loose(record: Record) -> str:
    return " ".join(unicodedata.normalize("NFKC", record.prompt.key).casefold().split())
