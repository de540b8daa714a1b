"""Tokenised data sets on disk, under a hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "RAYRLHF_CACHE"
"""Folder of the cache; by default `~/.cache/rayrlhf`."""
MAX_ENTRIES = 16
"""What was used longest ago goes when there is more."""


def cache_root() -> Path:
    """Where tokenised data sets are kept."""
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
        os.utime(folder)
    except FileNotFoundError:
        return None
    return folder


@contextmanager
def new_entry(key: str) -> Iterator[Path]:
    """An empty folder to fill; it becomes the entry when the block ends well, and goes when it does not."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        yield folder
        try:
            folder.rename(root / key)
        except OSError:  # another job made the same entry meanwhile
            if not (root / key).is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _evict(root)


def _evict(root: Path) -> None:
    finished = (path for path in root.iterdir() if not path.name.startswith("."))
    for path in sorted(finished, key=_last_use)[:-MAX_ENTRIES]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another job evicts too
        return 0.0


@cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
