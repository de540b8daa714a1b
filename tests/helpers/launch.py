"""Several ranks of one test on this machine: the test's own file, run as a script once a rank."""

import os
import runpy
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from rayrlhf.training.parallel import Ranks

RANKS = get_context("forkserver")
"""Forks each rank from a process that has the libraries loaded; each rank by itself would take seconds for that. pytest
itself cannot be forked: it may have Ray's threads."""
RANKS.set_forkserver_preload(["rayrlhf.training.dpo", "rayrlhf.training.reward_model", "rayrlhf.workers.learner"])


def launch(script: str, num_ranks: int, folder: Path, meanwhile: Callable[[], Any]) -> Any:
    """Run `script RANK NUM_RANKS PORT FOLDER` once a rank until all are done, and `meanwhile` here; what that gave."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    logs = [folder / f"rank-{rank}.log" for rank in range(num_ranks)]
    processes = [
        RANKS.Process(target=_run, args=([script, str(rank), str(num_ranks), str(port), str(folder)], log))
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.start()
    try:
        result = meanwhile()
        for process in processes:
            process.join(timeout=600)
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * num_ranks, "\n".join(log.read_text() for log in logs)
    return result


def _run(arguments: list[str], log: Path) -> None:
    """One rank: what it says goes to the log."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


def join(rank: str, num_ranks: str, port: str, folder: str) -> tuple[Ranks, Path]:
    """This process among the launched ones, from its arguments: its rank, and the test's folder."""
    torch.set_num_threads(1)
    ranks = Ranks(int(rank), int(num_ranks))
    ranks.join("127.0.0.1", int(port), timeout_s=60)
    return ranks, Path(folder)
