"""Metrics of a run: `metrics.jsonl`, TensorBoard, and one console line per step with the most important ones."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

LINE_EVERY_S = 1.0
"""Faster steps print at most one line in this time."""

CONTROL_CHARACTERS = [*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Of C0, DEL, C1, and those that turn the direction of text."""
_SPELLED_OUT = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in CONTROL_CHARACTERS if chr(code) not in "\n\t"
}


def harmless(text: str) -> str:
    """`text` with its control characters spelled out: shown as they are, they could rule the terminal."""
    return text.translate(_SPELLED_OUT)


class _PlainConsole(Console):
    """Shows texts of data, models and files as they are: nothing in them is markup or rules the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


console = _PlainConsole(soft_wrap=True, highlight=False, markup=False, emoji=False)


def prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """`metrics` with every name below `prefix/`."""
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


class MetricsLog:
    """Writes every step's metrics and shows the run's progress. A context manager.

    On a terminal it shows a progress bar; in a job's log, only lines.
    """

    def __init__(self, folder: Path, title: str, total_steps: int, shown: Sequence[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"))
        self._title, self._total, self._shown = title, total_steps, shown
        self._started = time.monotonic()
        self._last_line = -LINE_EVERY_S
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not sys.stdout.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task(title, total=total_steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()
        self._board.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of `step` (steps done, so the first is 1; 0 is before training)."""
        row = {"step": step, "elapsed_s": round(time.monotonic() - self._started, 3), **metrics}
        # JSON has no NaN or infinity: they are written as null.
        clean = {k: v if math.isfinite(v) else None for k, v in row.items()}
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()
        self._bar.update(self._task, completed=step)
        now = time.monotonic()
        is_milestone = step == self._total or any(name.startswith("eval/") for name in metrics)
        if now - self._last_line < LINE_EVERY_S and not is_milestone:
            return
        self._last_line = now
        if shown := [f"{name} {metrics[name]:.4g}" for name in self._shown if name in metrics]:
            self.say(f"{self._title} {self._progress(step)}  " + "  ".join(shown))

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._bar.console.print(line)

    def _progress(self, step: int) -> str:
        """`12/40 ██████░░░░`: a bar that also reads well in a log file."""
        filled = round(10 * min(1.0, step / self._total))
        return f"{step:>{len(str(self._total))}}/{self._total} {'█' * filled}{'░' * (10 - filled)}"
