"""`up`, `connect`, `down` on real clusters of this machine, on free ports, in folders of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray

from rayrlhf.cluster import connection, local, ray_auth
from rayrlhf.cluster.processes import ProcessId

pytestmark = pytest.mark.ray

PATIENCE_S = 120.0
"""For what takes a few seconds on a quiet machine."""

CONNECT = """
import ray
from rayrlhf.cluster import local
try:
    local.connect()
    print("connected", ray.get(ray.remote(lambda: "task ran").options(num_cpus=0.1).remote()))
except local.ClusterError as error:
    print("ClusterError:", error)
"""

# A job whose actor starts a process in a session of its own: the hardest to find again.
JOB = """
import subprocess, sys, time
import ray
from rayrlhf.cluster import local
local.connect()
@ray.remote(num_cpus=0.1)
class Holder:
    def start(self):
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        return subprocess.Popen(command, start_new_session=True).pid
holder = Holder.remote()
print("started", ray.get(holder.start.remote()), flush=True)
time.sleep(600)
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("0.0.0.0", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def python(code: str, **environment: str) -> str:
    """Output of `code` in a new process; an empty value removes that variable."""
    env = {key: value for key, value in {**os.environ, **environment}.items() if value}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Short: Ray puts sockets there, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="rr", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="module", autouse=True)
def surroundings(folder: Path) -> Iterator[None]:
    """State, token and runs of these tests, not this user's; no cluster from outside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYRLHF_STATE", str(folder / "cluster.json"))
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        patch.setenv("RAYRLHF_RUNS", str(folder / "runs"))
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.delenv(name, raising=False)
        yield


@dataclass
class Up:
    """The running cluster of this module, and what `up` said."""

    record: local.LocalCluster
    port: int
    said: list[str]


@pytest.fixture(scope="module")
def up(folder: Path, surroundings: None) -> Iterator[Up]:
    port, dashboard_port = free_ports(2)
    said: list[str] = []
    record = local.up(
        port=port,
        dashboard_port=dashboard_port,
        num_cpus=2,
        temp_dir=folder / "ours",
        timeout_s=PATIENCE_S,
        say=said.append,
    )
    yield Up(record, port, said)
    local.down(say=said.append)


@pytest.fixture(scope="module")
def open_cluster(folder: Path, surroundings: None) -> Iterator[str]:
    """A cluster of somebody else: plain `ray start --head` of a user without a token."""
    (port, dashboard_port) = free_ports(2)
    command = local._start_command(port, dashboard_port, 1, None, folder / "theirs", "127.0.0.1")
    env = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_TOKEN_PATH"}
    env |= {"HOME": str(folder / "nobody"), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    with (folder / "theirs.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    address = f"127.0.0.1:{port}"
    # Its raylet registers last, and ray.init needs it.
    wait_until(lambda: "block forever" in (folder / "theirs.log").read_text())
    yield address
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)


def test_nothing_up_is_said_without_a_stack_trace():
    with pytest.raises(local.ClusterError, match="rayrlhf up"):
        connection.client_environment()
    answer = python(CONNECT, RAY_ADDRESS=f"127.0.0.1:{free_ports(1)[0]}")
    assert "ClusterError: no Ray cluster answers at" in answer
    assert "ray start --head" in answer


def test_a_port_in_use_is_named_with_its_option():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(local.ClusterError, match=rf"port {port} .*--port {port + 1}"):
            local.up(port=port, dashboard_port=free_ports(1)[0])
        with pytest.raises(local.ClusterError, match=rf"port {port} .*--dashboard-port"):
            local.up(port=free_ports(1)[0], dashboard_port=port)


def test_a_folder_that_somebody_else_may_have_prepared_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    ports = dict(zip(("port", "dashboard_port"), free_ports(2), strict=True))
    prepared = tmp_path / f"rayrlhf-{os.getuid()}"
    prepared.mkdir()
    prepared.chmod(0o777)
    with pytest.raises(local.ClusterError, match="may be written into by other users; remove it, or set RAY_TMPDIR"):
        local.up(**ports)
    prepared.chmod(0o775)  # as it was made before, where the umask is 002
    with pytest.raises(local.ClusterError, match=rf"by its group, .* run `chmod go-w {prepared}`, otherwise remove it"):
        local.up(**ports)
    prepared.rmdir()
    prepared.write_text("")
    with pytest.raises(local.ClusterError, match="is no folder; remove it"):
        local.up(**ports)
    prepared.unlink()
    prepared.symlink_to(tmp_path / "nowhere")
    with pytest.raises(local.ClusterError, match="is a link"):
        local.up(**ports)
    prepared.unlink()
    prepared.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(local.ClusterError, match="is a link"):
        local.up(**ports)
    prepared.unlink()
    prepared.mkdir(mode=0o755)
    (prepared / str(ports["port"])).mkdir()
    (prepared / str(ports["port"])).chmod(0o777)  # as Ray leaves it
    precious = tmp_path / "precious"
    precious.write_text("precious")
    log = prepared / str(ports["port"]) / f"ray-start-{ports['port']}.log"
    log.symlink_to(precious)
    with pytest.raises(local.ClusterError, match=r"ray-start-.*\.log: cannot write it"):
        local.up(**ports)
    assert precious.read_text() == "precious"
    assert prepared.stat().st_mode & 0o077 == 0


def test_an_empty_token_file_becomes_one_that_only_this_user_reads(tmp_path: Path, monkeypatch):
    token = tmp_path / "token"
    token.touch(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert ray_auth.ensure_token() == token.read_text()
    assert token.stat().st_mode & 0o077 == 0


def test_a_token_is_in_nothing_that_is_shown(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "cluster-secret")
    cluster = connection.LocalCluster("127.0.0.1:1", "http://127.0.0.1:2", "", "", "", ProcessId(1, 0.0), ())
    monkeypatch.setattr(connection, "running", lambda: cluster)
    assert "cluster-secret" not in str(connection.client_environment())


def test_a_dashboard_url_as_ray_address_is_explained(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(local.ClusterError, match="RAY_API_SERVER_ADDRESS"):
        connection.find_address()


def test_up_makes_a_token_that_only_this_user_reads_and_up_again_reuses_the_cluster(up: Up):
    assert ray_auth.token_path().stat().st_mode & 0o077 == 0
    said: list[str] = []
    assert local.up(port=up.port, say=said.append) == up.record
    assert "already up" in said[0]


def test_a_cluster_of_one_machine_is_reached_under_an_address_that_no_other_machine_has(up: Up):
    assert up.record.address == f"127.0.0.1:{up.port}"


def test_connect_finds_the_recorded_cluster_and_authenticates(up: Up):
    assert python(CONNECT) == "connected task ran\n"
    assert python(CONNECT, RAY_ADDRESS=up.record.address) == "connected task ran\n"


def test_a_wrong_token_and_a_missing_one_are_told_apart(up: Up, folder: Path):
    wrong = python(CONNECT, RAY_AUTH_TOKEN="wrong")
    assert "does not accept the token of RAY_AUTH_TOKEN" in wrong
    missing = python(CONNECT, RAY_AUTH_TOKEN_PATH=str(folder / "none"))
    assert f"requires an authentication token, and {folder / 'none'} has none" in missing


def test_another_version_of_ray_is_named(up: Up, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "2.59.0")
    with pytest.raises(local.ClusterError, match=r"runs Ray .*this process 2\.59\.0.*pip install"):
        connection.check_access(up.record.address)


def test_connect_fits_a_cluster_without_authentication_though_a_token_exists(up: Up, open_cluster: str):
    assert ray_auth.read_token()
    assert python(CONNECT, RAY_ADDRESS=open_cluster) == "connected task ran\n"
    assert python(CONNECT, RAY_ADDRESS=open_cluster, RAY_AUTH_MODE="token") == "connected task ran\n"


def test_down_ends_a_job_and_all_it_started_and_nothing_else(up: Up, open_cluster: str, folder: Path, request):
    work = folder / "work"
    work.mkdir()
    (work / "job.py").write_text(JOB)
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", str(work)]
    env = {**os.environ, **connection.client_environment(), "PYTHONUNBUFFERED": "1"}
    with (folder / "job.log").open("w") as log:
        client = subprocess.Popen([*submit, "--", "python", "job.py"], env=env, stdout=log, stderr=log)
    request.addfinalizer(client.kill)
    read = (folder / "job.log").read_text
    wait_until(lambda: "started " in read() or client.poll() is not None)
    assert "started " in read(), read()
    holder = psutil.Process(int(read().split("started ")[1].split()[0]))
    members = [holder, *(process.find() for process in (up.record.root, *up.record.core))]

    assert local.down(say=up.said.append)

    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in members)
    assert not connection.state_path().exists()
    assert ray_auth.ask(up.record.address, None).status == "unreachable"
    assert ray_auth.ask(open_cluster, None).status == "ok"


def test_down_never_touches_a_process_that_took_a_recorded_number(folder: Path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_STATE", str(folder / "stale.json"))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as innocent:
        stale = {"pid": innocent.pid, "created": 1.0}
        record = {"address": "127.0.0.1:1", "dashboard_url": "", "temp_dir": "", "log": "", "mark": "none"}
        connection.state_path().write_text(json.dumps({**record, "root": stale, "core": [stale]}))
        assert not local.down(say=lambda line: None)
        assert innocent.poll() is None
        innocent.kill()
    assert not connection.state_path().exists()
