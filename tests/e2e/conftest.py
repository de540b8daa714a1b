"""The demo, run once for all tests of this folder, which pytest-xdist keeps in one process."""

import subprocess
import sys
from pathlib import Path

import pytest
from environment import plain_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The runs folder and what the demo printed."""
    runs = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "jobs/demo.py", "--runs", str(runs)],
        cwd=ROOT,
        env=plain_environment() | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=2000,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return runs / "demo", done.stdout
