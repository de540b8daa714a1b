"""Checks of this machine's cores, memory, shared memory and disks, as pure functions of the measured values.

`rayrlhf doctor` prints them all; `rayrlhf up` stops at those that would break a cluster.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

GIB = 1024**3


@dataclass(frozen=True)
class Check:
    """One line of `rayrlhf doctor`. `fix` is the command or step to take; empty if all is well."""

    name: str
    status: Literal["ok", "warn", "error"]
    found: str
    fix: str = ""


def existing_parent(path: Path) -> Path:
    """`path`, or the closest folder above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def available_cores() -> int:
    """Cores that this process may use; a container or taskset may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of memory, or of the container's limit where that is lower."""
    limits = [psutil.virtual_memory().total]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(file).read_text().strip() if Path(file).exists() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def shared_memory() -> int | None:
    """Bytes of /dev/shm, None where there is none (macOS)."""
    return shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None


def ray_folder() -> Path:
    """Where Ray keeps sessions, sockets and spilled objects. Not TMPDIR, since socket paths must be short."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp")


def check_cores(cores: int) -> Check:
    """One core works, but learner and samplers then take turns."""
    if cores < 2:
        return Check("cores", "warn", f"{cores}", "use 2 cores or more; with one, a run works but is slow")
    return Check("cores", "ok", f"{cores}")


def check_memory(total: int) -> Check:
    """`total`: bytes. The demo's Ray, engine, learner and scorers peak at about 6 GiB."""
    found = f"{total / GIB:.1f} GiB"
    if total < 6 * GIB:
        return Check("memory", "error", found, "use a machine or container with 8 GiB or more")
    if total < 8 * GIB:
        return Check("memory", "warn", found, "use 8 GiB or more; with less, train models below 20M parameters")
    return Check("memory", "ok", found)


def check_shm(total: int | None, memory: int) -> Check:
    """`total`, `memory`: bytes. Ray's object store takes 30 % of memory from /dev/shm, else from a disk."""
    if total is None:
        return Check("/dev/shm", "ok", "none on this system; Ray uses a folder")
    found = f"{total / GIB:.1f} GiB"
    wanted = 0.3 * memory
    if total < min(wanted, 2 * GIB):
        gib = max(2, round(wanted / GIB))
        fix = f"docker run --shm-size={gib}g …, or mount -o remount,size={gib}G /dev/shm"
        return Check("/dev/shm", "warn", f"{found}; Ray falls back to a slow disk", fix)
    return Check("/dev/shm", "ok", found)


def check_disk(name: str, path: Path, free: int, total: int) -> Check:
    """`free`, `total`: bytes. Ray stops storing objects on a disk that is 95 % full."""
    found = f"{free / GIB:.1f} GiB free of {total / GIB:.0f} at {path}"
    if free < GIB or free < 0.05 * total:
        return Check(name, "error", found, f"free some space: du -xh -d1 {path} | sort -h | tail")
    if free < 5 * GIB:
        return Check(name, "warn", found, "keep 5 GiB or more free: a checkpoint takes 16 bytes per parameter")
    return Check(name, "ok", found)


def disk_check(name: str, path: Path) -> Check:
    """`check_disk` of the disk that holds `path`, which need not exist yet."""
    folder = existing_parent(path)
    usage = shutil.disk_usage(folder)
    return check_disk(name, folder, usage.free, usage.total)
