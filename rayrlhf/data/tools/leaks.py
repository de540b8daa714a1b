"""Prompts that two files share: equal, equal except for case and white space, or near duplicates."""

from __future__ import annotations

import itertools
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from rayrlhf.config import ConfigError
from rayrlhf.data.cleaning.near_duplicates import TfidfDuplicates
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.ingest.progress import reading_progress
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.ingest.records import Origin, Record
from rayrlhf.data.ingest.sources import Source
from rayrlhf.data.tools.options import Inputs
from rayrlhf.data.tools.output_file import OutputFile, check_free
from rayrlhf.data.tools.outputs import check_outputs, output_paths
from rayrlhf.data.tools.transform import transform
from rayrlhf.data.tools.writer import check_format
from rayrlhf.metrics import console

SHOWN = 5
EXCERPT = 80
"""Characters of a leaking prompt that are shown."""
KINDS = ("equal", "equal but for case and space", "near")


@dataclass(frozen=True)
class Leak:
    """A prompt that is in two files."""

    how: str
    """One of KINDS."""
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


def leaks(inputs: Inputs, near: float | None, out: Path | None, drop: Path | None = None, force: bool = False) -> int:
    """Compare every two inputs, print what they share, and return the number of leaks that are left.

    Args:
        out: where to write all leaks as JSON lines.
        drop: where to write the last input without the rows whose prompts leak.
        force: replace files that are there; inputs never are.
    """
    reported = [] if out is None else [out]
    dropped = [] if drop is None else output_paths([drop])
    for path in dropped:
        if out is not None and os.path.realpath(path) == os.path.realpath(out):
            raise ConfigError(f"--out {out}: --drop {drop} writes this file, too; give another name")
        check_free(path, force)  # before the inputs are compared, which may take long
    check_outputs([*reported, *dropped], inputs.given)
    if drop is not None:
        check_format(drop)
    with ExitStack() as stack:
        report = stack.enter_context(OutputFile(out, force)) if out is not None else None
        records: dict[str, list[Record]] = {}
        advance = stack.enter_context(reading_progress("data leaks", inputs.files))
        for source in inputs.sources:
            records[source.label] = _prompts(source, advance)
        names = short_names(list(records))
        pairs = {
            (ours, theirs): find_leaks(records[ours], records[theirs], near)
            for ours, theirs in itertools.combinations(records, 2)
        }
        found = [leak for pair in pairs.values() for leak in pair]
        if report is not None:
            for leak in found:
                report.write(json.dumps(_as_row(leak), ensure_ascii=False) + "\n")
        distinct = {label: len({r.prompt.key for r in of}) for label, of in records.items()}
        _print(pairs, distinct, names, near is not None)
        for ours, theirs in itertools.combinations(inputs.sources, 2):
            if (content := ours.content_hash()) is not None and content == theirs.content_hash():
                console.print(f"{names[ours.label]} and {names[theirs.label]} have the same content: one is a copy")
        for leak in found[:SHOWN]:
            console.print(
                f"{leak.how}: {_place(leak.record, names)} and {_place(leak.like, names)}: "
                f"{leak.record.prompt.text[:EXCERPT]!r}"
            )
        if len(found) > SHOWN:
            console.print(f"… and {len(found) - SHOWN} more" + ("" if out else "; --out FILE writes all"))
        last = inputs.sources[-1].label
        of_last = [leak for leak in found if drop is not None and leak.record.origin.source == last]
        if drop is not None:
            _drop(inputs, of_last, records[last], drop, force)
        if report is not None:
            report.publish()  # when nothing can fail any more
    return len(found) - len(of_last)


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Each label without the folders that all of them share."""
    folders = [os.path.dirname(label) for label in labels]
    try:
        shared = os.path.commonpath(folders)
    except ValueError:  # some are absolute
        return {label: label for label in labels}
    return {label: os.path.relpath(label, shared) if shared else label for label in labels}


def _print(
    pairs: Mapping[tuple[str, str], list[Leak]], distinct: Mapping[str, int], names: Mapping[str, str], with_near: bool
) -> None:
    """A row for every two files that share a prompt."""
    shown = KINDS if with_near else KINDS[:2]
    table = Table(title="prompts in two files", title_justify="left")
    for heading in ("file", "is in", "prompts", *shown, "share"):
        table.add_column(heading, overflow="fold")
    for (ours, theirs), pair in pairs.items():
        if pair:
            counts = [str(sum(leak.how == how for leak in pair)) for how in shown]
            share = f"{len(pair) / distinct[theirs]:.1%}"
            table.add_row(names[theirs], names[ours], str(distinct[theirs]), *counts, share)
    if table.row_count:
        console.print(table)
    if clean := len(pairs) - table.row_count:
        pair_of_files = "pair of files shares" if clean == 1 else "pairs of files share"
        console.print(
            f"{clean} {pair_of_files} no prompt" + ("" if with_near else " (--near looks for similar ones too)")
        )


def _drop(inputs: Inputs, leaks: Sequence[Leak], prompts: Sequence[Record], out: Path, force: bool) -> None:
    """Write the last input without the rows of leaking prompts."""
    by_prompt = {leak.record.prompt.key: leak for leak in leaks}
    # Of a conversation a row may give several prompts: it goes as a whole.
    by_place = {r.origin.place: by_prompt[r.prompt.key] for r in prompts if r.prompt.key in by_prompt}

    def rule(records: Iterable[Record], account: Account) -> Iterator[Record]:
        for record in records:
            leak = by_prompt.get(record.prompt.key) or by_place.get(record.origin.place)
            if leak is None:
                yield record
            else:
                account.reject(record, "leak", f"{leak.how}: {leak.like.origin}")

    transform("leaks", replace(inputs, sources=inputs.sources[-1:]), rule, {"out": out}, force=force)


def _as_row(leak: Leak) -> dict[str, str]:
    return {
        "how": leak.how,
        "prompt": leak.record.prompt.text,
        "at": str(leak.record.origin),
        "like": leak.like.prompt.text,
        "like_at": str(leak.like.origin),
    }


def _place(record: Record, names: Mapping[str, str]) -> Origin:
    return replace(record.origin, source=names[record.origin.source])


def _prompts(source: Source, advance: Callable[[int], None]) -> list[Record]:
    account = Account(advance=advance)
    records = []
    for record in read_records([source], "prompts", account):
        account.keep(record)
        records.append(record)
    account.finish()
    if account.num_rejected:
        console.print(f"{source.label}: compared {account}")
    return records


def _loose(record: Record) -> str:
    return " ".join(unicodedata.normalize("NFKC", record.prompt.key).casefold().split())
