"""A Ray cluster on this machine: `up` and `down`.

`up` starts `ray start --head --block`, whose children are the cluster, in a folder of its own, with token
authentication. Neither touches other Ray clusters on the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
import requests

from rayrlhf.cluster import ray_auth
from rayrlhf.cluster.connection import ClusterError, LocalCluster, connect, recorded, running, state_path
from rayrlhf.cluster.machine import check_shm, disk_check, ray_folder, shared_memory, total_memory
from rayrlhf.cluster.processes import MARK, ProcessId, stop

__all__ = ["ClusterError", "LocalCluster", "connect", "down", "free_port", "up"]

LOOPBACK = "127.0.0.1"


def up(
    *,
    port: int = 6379,
    dashboard_port: int = 8265,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    host: str = LOOPBACK,
    temp_dir: Path | None = None,
    timeout_s: float = 60.0,
    say: Callable[[str], None] = print,
) -> LocalCluster:
    """Start a cluster on this machine, or return the one that already runs. It is ready for jobs on return.

    `num_cpus` and `num_gpus` default to what Ray finds. `host` is this machine's address in the cluster: under
    the default no other machine can join. (Ray's processes listen on every interface whatever it is; the token protects
    them.) `temp_dir` holds Ray's sessions and logs. Jobs inherit
    RAYRLHF_RUNS=<current folder>/runs, since Ray runs them in a copy of their working directory. Raises ClusterError if
    a port is in use, a disk is full, somebody else may write into its folder, or nothing answers within `timeout_s`.
    """
    if cluster := running():
        say(f"already up at {cluster.address} (dashboard {cluster.dashboard_url}); `rayrlhf down` stops it")
        return cluster
    if recorded():
        down(say=say)  # leftovers of a crashed cluster

    _require_free_port(port, "--port")
    _require_free_port(dashboard_port, "--dashboard-port")
    of_user = ray_folder() / f"rayrlhf-{os.getuid()}"
    folder = temp_dir or of_user / str(port)
    _require_room(folder, say)
    token = ray_auth.ensure_token()

    if temp_dir is None:
        _require_own_folder(of_user)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / f"ray-start-{port}.log"
    mark = uuid.uuid4().hex
    with os.fdopen(_opened_log(log), "w") as output:
        process = subprocess.Popen(
            _start_command(port, dashboard_port, num_cpus, num_gpus, folder, host),
            env=_start_environment(mark),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # outlives this terminal
        )
    root = ProcessId.of(psutil.Process(process.pid))
    try:
        address = f"{host}:{port}"
        url = f"http://127.0.0.1:{dashboard_port}"
        _wait_for_job_api(process, url, token, log, timeout_s)
        core = tuple(ProcessId.of(child) for child in psutil.Process(process.pid).children())
        cluster = LocalCluster(address, url, str(folder), str(log), mark, root, core)
        state_path().parent.mkdir(parents=True, exist_ok=True)
        state_path().write_text(json.dumps(asdict(cluster), indent=2))
    except BaseException:  # Ctrl-C included: leave no process that the state file does not name
        stop(root, mark)
        raise
    say(f"up at {cluster.address}, dashboard {cluster.dashboard_url}, logs {folder}/session_latest/logs")
    return cluster


def down(*, say: Callable[[str], None] = print) -> bool:
    """Stop what `up` started, jobs included, and wait until it has ended. Returns False if nothing ran.

    Raises ClusterError naming the processes that did not end.
    """
    cluster = recorded()
    if cluster is None:
        say("nothing to stop: no cluster was started with `rayrlhf up`")
        return False
    try:
        count = stop(cluster.root, cluster.mark, cluster.core)
    except TimeoutError as error:
        raise ClusterError(f"{error}; inspect them with `ps -fp PID`, then run `rayrlhf down` again") from None
    state_path().unlink(missing_ok=True)
    say(f"stopped {cluster.address} ({count} processes)")
    return count > 0


def _start_command(
    port: int, dashboard_port: int, num_cpus: int | None, num_gpus: int | None, folder: Path, host: str
) -> list[str]:
    options: dict[str, object] = {
        "node-ip-address": host,
        "port": port,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard_port,
        "temp-dir": folder,
        # Ray's fixed defaults collide with a second cluster on the machine.
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
    }
    if num_cpus is not None:
        options["num-cpus"] = num_cpus
    if num_gpus is not None:
        options["num-gpus"] = num_gpus
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *arguments]


def _start_environment(mark: str) -> dict[str, str]:
    """What the cluster's processes, and so the drivers of its jobs, find in their environment."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_JOB_ID")}
    return inherited | {
        MARK: mark,
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # On SIGTERM Ray would wait 30 s for running actors.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAYRLHF_RUNS": os.environ.get("RAYRLHF_RUNS") or str(Path.cwd() / "runs"),
        # Jobs started as `python …` then use this interpreter, whether or not its environment is activated.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def _require_own_folder(folder: Path) -> None:
    """Make a folder that nobody else gets into: Ray lets everybody write into its own, which are below. Raises
    ClusterError if somebody else wrote or may have written into it: under the temporary directory anybody may have put
    it there, or a link."""
    fix = "remove it, or set RAY_TMPDIR to a folder of your own"
    with contextlib.suppress(FileExistsError):
        try:
            folder.mkdir(parents=True, mode=0o700)
        except (PermissionError, NotADirectoryError) as error:
            raise ClusterError(f"{folder}: cannot make it: {error.strerror}; set RAY_TMPDIR to another one") from None
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        problem = "is a link"
    elif not stat.S_ISDIR(found.st_mode):
        problem = "is no folder"
    elif found.st_uid != os.getuid():
        problem = f"belongs to user {found.st_uid}"
    elif found.st_mode & 0o002:
        problem = "may be written into by other users"
    elif found.st_mode & 0o020:  # so rayrlhf itself made it before, where the umask leaves groups their rights
        problem = f"may be written into by its group, {found.st_gid}"
        fix = f"if nobody else is in it, run `chmod go-w {folder}`, otherwise {fix}"
    else:
        return folder.chmod(0o700)
    raise ClusterError(f"{folder} {problem}; {fix}")


def _opened_log(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ClusterError(f"{path}: cannot write it: {error.strerror}; remove it") from None


def _require_free_port(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError as error:
            raise ClusterError(
                f"port {port} cannot be used ({error.strerror}): another program uses it; "
                f"choose another with `rayrlhf up {option} {port + 1}`"
            ) from None


def free_port() -> int:
    """A TCP port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def _require_room(folder: Path, say: Callable[[str], None]) -> None:
    for check in (disk_check("disk for Ray", folder), check_shm(shared_memory(), total_memory())):
        if check.status == "error":
            raise ClusterError(f"{check.name}: {check.found}; {check.fix}")
        if check.status == "warn":
            say(f"warning: {check.name}: {check.found}; {check.fix}")


def _wait_for_job_api(process: subprocess.Popen[bytes], url: str, token: str, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    found = "nothing listens yet"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            raise ClusterError(f"`ray start` ended with code {process.returncode}; {log} ends with:\n{tail}")
        try:
            headers = {"Authorization": f"Bearer {token}"}
            reply = requests.get(f"{url}/api/jobs/", headers=headers, timeout=5)
            if reply.ok:
                return
            found = f"status {reply.status_code}: {reply.text[:200]}"
        except requests.RequestException as error:
            found = type(error).__name__
        time.sleep(0.1)
    raise ClusterError(
        f"the cluster's job API at {url} did not answer within {timeout_s:g} s ({found}); see {log}, "
        "or allow more time with `rayrlhf up --timeout-s`"
    )
