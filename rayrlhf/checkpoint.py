"""Checkpoints that are whole or not there: written beside their place, moved into it, old ones removed last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


class Checkpoints:
    """`step-000020/` folders, of which the newest few are kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def write(self, step: int, save: Callable[[str], None]) -> Path:
        """Let `save` fill a new folder; the earlier checkpoints stay as they are until it is complete."""
        final = self._folder / f"step-{step:06d}"
        partial = self._folder / f".partial-{step:06d}"
        for leftover in (partial, final):  # of a run that was cut off, or went back to an earlier step
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        save(str(partial))
        partial.rename(final)
        for old in self.all()[: -self._keep]:
            shutil.rmtree(old)
        return final

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self._folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
