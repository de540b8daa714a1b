"""Atomic checkpoints: written to a temporary folder, then renamed; old ones are renamed away, and removed last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from rayrlhf.config import UserError


def is_due(step: int, interval: int) -> bool:
    """Whether something that happens every `interval` steps happens at this one; 0 is never."""
    return interval > 0 and step % interval == 0


class Checkpoints:
    """Folders `step-000020/`, of which the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def write(self, step: int, save: Callable[[str], None]) -> Path:
        """Let `save` fill a new folder. Earlier checkpoints stay until it is complete. Returns its path.

        Raises UserError if nothing was saved there: `save` may run on other machines.
        """
        final = self._folder / f"step-{step:06d}"
        partial = self._folder / f".partial-{step:06d}"
        self._clear()
        partial.mkdir(parents=True)
        save(str(partial))
        _check_and_sync(partial)
        if final.exists():  # of a run that was resumed from an earlier step
            self._set_aside(final)
        partial.rename(final)
        _sync(self._folder)
        for old in self.all()[: -self._keep]:
            self._set_aside(old)
        self._clear()
        return final

    def _set_aside(self, folder: Path) -> None:
        """What is half removed when the process ends must not look like a checkpoint."""
        folder.rename(folder.with_name(f".removed-{folder.name}"))

    def _clear(self) -> None:
        """Remove what was set aside, and what an interrupted run left."""
        for pattern in (".removed-*", ".partial-*"):
            for leftover in self._folder.glob(pattern):
                shutil.rmtree(leftover)

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self._folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _check_and_sync(folder: Path) -> None:
    """Have the disk keep what was saved, before its name says that it is complete."""
    saved = [path for path in folder.rglob("*") if path.is_file()]
    if not saved:
        raise UserError(
            f"{folder}: the checkpoint has no files here, so the learners wrote them to another machine's disk: set "
            "RAYRLHF_RUNS to a folder that all machines of the cluster share"
        )
    for path in (*saved, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
