"""Live metrics from Ray Train: rank 0 posts them to an actor, the driver polls it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import ray

from rayrlhf.cluster.placement import on_this_node

POLL_S = 0.3

Post = tuple[int, dict[str, float]]
"""(steps done, metrics)."""


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds posts until they are collected."""

    def __init__(self) -> None:
        self._posts: list[Post] = []

    def post(self, step: int, metrics: dict[str, float]) -> None:
        """Add the metrics of one step."""
        self._posts.append((step, metrics))

    def collect(self) -> list[Post]:
        """All posts since the last call, in order."""
        posts, self._posts = self._posts, []
        return posts


@contextmanager
def deliver_to(receive: Callable[[int, dict[str, float]], None]) -> Any:
    """A mailbox whose posts are passed to `receive` while the block runs; none is left at its end."""
    box: Any = Mailbox.options(**on_this_node()).remote()  # type: ignore[attr-defined]
    done = threading.Event()

    def collect() -> None:
        for step, metrics in ray.get(box.collect.remote()):
            receive(step, metrics)

    def poll() -> None:
        while not done.wait(POLL_S):
            collect()

    thread = threading.Thread(target=poll, name="metrics", daemon=True)
    thread.start()
    try:
        yield box
    finally:
        done.set()
        thread.join()
        collect()
        ray.kill(box)
