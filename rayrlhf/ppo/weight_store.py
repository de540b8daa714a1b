"""The `WeightStore` actor: learners' buckets → references that it owns → samplers, each of which pulls by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import ray

from rayrlhf.weights.store import Published, VersionStore
from rayrlhf.workers.sampler import Weights

PATIENCE_S = 5.0
"""How long one call to the store waits for a new version, before the sampler calls again."""
PAUSE_S = 0.5
"""Between calls to a store that is being restarted."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class WeightStore:
    """Owns the references to the newest weight versions, so that they outlive the learner that made them.

    If its process dies, Ray restarts it empty, and the loop publishes the version again (`Weights.heal`).
    """

    def __init__(self) -> None:
        self._versions = VersionStore()
        self._changed = asyncio.Condition()

    async def publish(self, version: int, learners: list[Any], dtype: Any) -> None:
        """Have the learners export their weights as `version`, and wake the samplers that wait for it.

        Ray gives a call's results to its caller, so the store makes the call: the buckets stay on rank 0's node, and
        this actor owns them.
        """
        streams = [host.export.options(num_returns="streaming").remote(dtype) for host in learners]
        buckets, *others = [[reference async for reference in stream] for stream in streams]
        counts = await asyncio.gather(buckets.pop(), *(other[-1] for other in others))
        assert counts[0] == len(buckets) > 0, "the learner's export ended early"
        async with self._changed:
            self._versions.publish(Published(version, buckets))
            self._changed.notify_all()

    async def version(self) -> int:
        """Of the newest weights; −1 if there are none."""
        newest = self._versions.newest
        return -1 if newest is None else newest.version

    @ray.method(max_task_retries=0)  # samplers retry by themselves
    async def newest(self, min_version: int, timeout_s: float) -> Published | None:
        """The newest version, once there is one of at least `min_version`; None if there is none in time."""

        def there() -> bool:
            newest = self._versions.newest
            return newest is not None and newest.version >= min_version

        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(there), timeout_s)
            return self._versions.newest if there() else None


class StoreClient:
    """The store as a sampler sees it."""

    def __init__(self, store: ray.actor.ActorHandle) -> None:
        self._store = store

    def newest(self, min_version: int) -> Published | None:
        """The newest version; None if there is none of at least `min_version` yet, or the store is gone."""
        try:
            published: Published | None = ray.get(self._store.newest.remote(min_version, PATIENCE_S))
        except ray.exceptions.RayActorError:
            time.sleep(PAUSE_S)
            return None
        return published

    def fetch(self, published: Published) -> Weights | None:
        """Its buckets, mapped from the object store; None if they were lost with the store's process."""
        try:
            return Weights(published.version, ray.get(published.buckets))
        except ray.exceptions.ObjectLostError:
            time.sleep(PAUSE_S)
            return None
