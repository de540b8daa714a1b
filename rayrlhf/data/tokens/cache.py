"""Tokenised data sets on disk, under a hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "RAYRLHF_CACHE"
"""Folder of the cache; by default `~/.cache/rayrlhf`."""
MAX_ENTRIES = 16
"""Of each sort; the least recently used are removed."""
UNFINISHED = ".new-"
ABANDONED_AFTER_S = 86400.0
"""An unfinished entry without a write for so long was left by a job that was killed."""


def cache_root() -> Path:
    """Where tokenized data sets are kept."""
    named = os.environ.get(CACHE_VARIABLE)
    return (Path(named) if named else Path.home() / ".cache" / "rayrlhf") / "tokens"


def cache_key(parts: dict[str, Any]) -> str:
    """A hash of `parts` and of the code that makes data sets: neither can change without it."""
    content = json.dumps({**parts, "code": _code_hash()}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def find_entry(key: str) -> Path | None:
    """The folder of a finished entry, or None."""
    folder = cache_root() / key
    try:
        _mark_used(folder)
    except FileNotFoundError:
        return None
    return folder


@contextmanager
def new_entry(key: str) -> Iterator[Path]:
    """An empty folder to fill; it becomes the entry when the block succeeds, and is removed when it fails."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=root))
    try:
        yield folder
        _mark_used(folder)  # it may have been begun long before others that are finished
        try:
            folder.rename(root / key)
        except OSError:  # another job made the same entry meanwhile
            if not (root / key).is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _evict(root)


def _evict(root: Path) -> None:
    paths = list(root.iterdir())
    unfinished = [path for path in paths if path.name.startswith(UNFINISHED)]
    files = [path for path in paths if path.is_file()]  # rejected rows of jobs that failed
    entries = [path for path in paths if path not in unfinished and path not in files]
    for path in (*_oldest(entries), *_oldest(files), *filter(_is_abandoned, unfinished)):
        if path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _oldest(paths: list[Path]) -> list[Path]:
    return sorted(paths, key=_last_use)[:-MAX_ENTRIES]


def _is_abandoned(folder: Path) -> bool:
    return time.time() - max(map(_last_use, (folder, *folder.glob("*")))) > ABANDONED_AFTER_S


def _mark_used(folder: Path) -> None:
    now = time.time_ns()  # the file system's own clock is coarser than two uses may be apart
    os.utime(folder, ns=(now, now))


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another job evicts too
        return 0.0


def code_files() -> list[Path]:
    """The code that decides what is in an entry: all of `rayrlhf.data`."""
    return sorted(Path(__file__).parents[1].rglob("*.py"))


@cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for path in code_files():
        digest.update(path.read_bytes())
    return digest.hexdigest()
