"""Atomic checkpoints: written to a temporary folder, then renamed; old ones are removed last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


def is_due(step: int, interval: int) -> bool:
    """Whether something that happens every `interval` steps happens at this one; 0 is never."""
    return interval > 0 and step % interval == 0


class Checkpoints:
    """Folders `step-000020/`, of which the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def write(self, step: int, save: Callable[[str], None]) -> Path:
        """Let `save` fill a new folder. Earlier checkpoints stay until it is complete. Returns its path."""
        final = self._folder / f"step-{step:06d}"
        partial = self._folder / f".partial-{step:06d}"
        for leftover in (partial, final):  # of an interrupted run, or one resumed from an earlier step
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
