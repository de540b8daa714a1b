"""Several ranks of one test on this machine: the test's own file, run as a script once a rank."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rayrlhf.training.parallel import Ranks


def launch(script: str, num_ranks: int, folder: Path, meanwhile: Callable[[], Any]) -> Any:
    """Run `script RANK NUM_RANKS PORT FOLDER` once a rank until all are done, and `meanwhile` here; what that gave."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    logs = [folder / f"rank-{rank}.log" for rank in range(num_ranks)]
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(num_ranks), str(port), str(folder)],
            stderr=log.open("w"),
            env={**os.environ, "PYTHONPATH": paths},
        )
        for rank, log in enumerate(logs)
    ]
    try:
        result = meanwhile()
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * num_ranks, "\n".join(log.read_text() for log in logs)
    return result


def join(rank: str, num_ranks: str, port: str, folder: str) -> tuple[Ranks, Path]:
    """This process among the launched ones, from its arguments: its rank, and the test's folder."""
    torch.set_num_threads(1)
    ranks = Ranks(int(rank), int(num_ranks))
    ranks.join("127.0.0.1", int(port), timeout_s=60)
    return ranks, Path(folder)
