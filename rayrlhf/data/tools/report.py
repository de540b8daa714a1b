"""The tables that tools print at their end."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from rayrlhf.data.ingest.account import Account
from rayrlhf.data.tools.statistics import Statistics
from rayrlhf.metrics import console


def print_account(account: Account, noun: str) -> None:
    """Rows in, kept, rejected by reason; `noun` names the records."""
    table = Table(title="rows", title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    table.add_column(justify="right", overflow="fold")
    rows = max(1, account.rows)
    table.add_row("in", f"{account.rows:,}", "")
    table.add_row("kept", f"{account.kept:,}", f"{account.kept / rows:.1%}")
    table.add_row("rejected", f"{account.num_rejected:,}", f"{account.num_rejected / rows:.1%}")
    for reason, count in account.rejected.most_common():
        table.add_row(f"  {reason}", f"{count:,}", f"{count / rows:.1%}")
    if account.undecided:
        table.add_row(
            "not decided when the reading stopped", f"{account.undecided:,}", f"{account.undecided / rows:.1%}"
        )
    if account.records != account.rows - (account.num_rejected - account.records_rejected.total()):
        table.add_section()
        table.add_row(f"{noun} made", f"{account.records:,}", "")
        for reason, count in account.records_rejected.most_common():
            table.add_row(f"  rejected: {reason}", f"{count:,}", "")
    table.add_section()
    table.add_row(f"{noun} out", f"{account.records_kept:,}", "")
    for note, count in account.notes.most_common():
        table.add_row(f"  {note}", f"{count:,}", "")
    console.print(table)
    for columns in account.unread:
        console.print(columns)


def print_statistics(statistics: Statistics) -> None:
    """Lengths and languages."""
    if not statistics.num_records:
        return
    table = Table(title="lengths", title_justify="left")
    table.add_column("", overflow="fold")
    for heading in ("min", "median", "mean", "p95", "max"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, summary in statistics.lengths().items():
        table.add_row(name, *(f"{value:,.0f}" for value in summary.values()))
    console.print(table)
    if statistics.num_pairs:
        longer = statistics.longer_wins / statistics.num_pairs
        best = max(longer, 1 - longer)
        console.print(
            f"the chosen answer is the longer one in {longer:.1%} of {statistics.num_pairs:,} pairs, the shorter one "
            f"in {1 - longer:.1%} (of equal length: half); a reward model must do better than {best:.1%}"
        )
    if statistics.num_desirable:
        console.print(f"labels: {statistics.num_desirable / statistics.num_records:.1%} of the answers are good")
    counts = statistics.languages()
    of = len(statistics.sample)
    shares = ", ".join(f"{name} {count / of:.1%}" for name, count in counts.most_common(8))
    sampled = f" (of a uniform sample of {of:,})" if of < statistics.num_records else ""
    console.print(f"languages: {shares}{sampled}")


def print_files(written: Mapping[str, str]) -> None:
    """The files written, by name."""
    for what, path in written.items():
        console.print(f"{what}: {path}")
