"""Progress of reading files, in bytes: a bar on a terminal, a line every 10 s in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


@contextmanager
def reading_progress(title: str, paths: Iterable[str]) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes just read from any of the files."""
    total = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty():
        yield _Lines(title, total, console).advance
        return
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total or None)
        yield lambda num_bytes: bar.advance(task, num_bytes)


class _Lines:
    def __init__(self, title: str, total: int, console: Console) -> None:
        self._title, self._total, self._console = title, total, console
        self._read, self._last = 0, time.monotonic()

    def advance(self, num_bytes: int) -> None:
        self._read += num_bytes
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            of = f" of {self._total / 1e6:.0f}" if self._total else ""
            self._console.print(f"{self._title}: {self._read / 1e6:.0f}{of} MB read")
