"""A real local cluster with authentication on, shared by the tests of this folder that only use one."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from rayrlhf.actors import cluster


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[None]:
    """`rayrlhf up` with four logical cores, this process connected to it, `rayrlhf down` at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAYRLHF_STATE", f"{folder}/cluster.json")
        patch.setenv("RAY_AUTH_TOKEN", "a" * 32)
        patch.setenv("RAYRLHF_RUNS", f"{folder}/runs")
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.up(
            port=cluster.free_port(), dashboard_port=cluster.free_port(), num_cpus=4, temp_dir=Path(folder) / "ray"
        )
        try:
            cluster.connect()
            yield
        finally:
            ray.shutdown()
            cluster.down()
            os.environ.pop("RAY_AUTH_MODE", None)
