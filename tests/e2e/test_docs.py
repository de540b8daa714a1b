"""Every command of the documents as it stands there, in order, in a copy of the repository that the demo was run in."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from environment import plain_environment
from shell_blocks import ROOT, shell_blocks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

PORTS = (6379, 8265)
"""Those of `rayrlhf up`, as the documents call it."""
NEEDED = ("rayrlhf", "jobs", "configs", "cluster", "data", "docs", "pyproject.toml", ".gitignore")
DOCUMENTS = {
    document: list(of_document)
    for document, of_document in groupby(
        (block for block in shell_blocks() if block.not_run is None), key=lambda block: block.document
    )
}


@pytest.fixture(scope="module")
def checkout(demo: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the repository, after `make demo`."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    shutil.copytree(demo[0], copy / "runs/demo")
    (copy / ".venv/bin").mkdir(parents=True)
    (copy / ".venv/bin/activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n', encoding="utf-8")
    yield copy
    bash(copy, "rayrlhf down")


def bash(checkout: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script, which ends with the first command that fails. Standard input is empty."""
    environment = plain_environment() | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "RAYRLHF_STATE": str(checkout / "runs/cluster.json"),
        "RAYRLHF_CACHE": os.environ["RAYRLHF_CACHE"],
        "VENV": sys.prefix,
        "PS4": "+ $SECONDS s: ",
    }
    return subprocess.run(
        ["bash", "-o", "errexit", "-o", "pipefail", "-o", "xtrace", "-c", script],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_works_as_it_stands(document: str, checkout: Path) -> None:
    script = "".join(block.text for block in DOCUMENTS[document])
    if "rayrlhf up" in script or "local.sh" in script:
        wait_for_ports()
    done = bash(checkout, script)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]


def wait_for_ports() -> None:
    """Skips if something else has the ports, a cluster of the developer's own perhaps."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        used = [port for port in PORTS if is_used(port)]
        if not used:
            return
        time.sleep(0.5)
    pytest.skip(f"ports {used} are in use: stop what has them, perhaps with `rayrlhf down`")


def is_used(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False
