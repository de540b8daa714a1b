"""A second node of the tests' cluster that offers nothing: what is on it was put there at random."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def idle_node(timeout_s: float = 120.0) -> Iterator[str]:
    """Its id. The process is connected to the cluster."""
    before = _alive()
    address = ray.get_runtime_context().gcs_address
    command = ["start", f"--address={address}", "--node-ip-address=127.0.0.1", "--num-cpus=0", "--block"]
    with subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + timeout_s
            while not (added := _alive() - before):
                assert process.poll() is None and time.monotonic() < deadline, "no second node"
                time.sleep(0.2)
            yield added.pop()
        finally:
            process.terminate()


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
