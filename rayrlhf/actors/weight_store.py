"""The `WeightStore` actor, and how a sampler asks it."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from rayrlhf.weights.store import Published, VersionStore


@ray.remote(num_cpus=0)
class WeightStore:
    """Owns the references to the newest weight versions, so that they outlive the learner that made them."""

    def __init__(self) -> None:
        self._versions = VersionStore()
        self._changed = asyncio.Condition()

    async def publish(self, version: int, learners: list[Any], dtype: Any) -> None:
        """Have the learners export their weights as `version`, and wake whoever waits for it.

        Ray gives a call's results to its caller, so the store makes the call: the buckets lie on rank 0's node and are
        this actor's.
        """
        streams = [host.export.options(num_returns="streaming").remote(dtype) for host in learners]
        buckets, *others = [[reference async for reference in stream] for stream in streams]
        counts = await asyncio.gather(buckets.pop(), *(other[-1] for other in others))
        assert counts[0] == len(buckets) > 0, "the learner's export ended early"
        async with self._changed:
            self._versions.publish(Published(version, buckets))
            self._changed.notify_all()

    async def newest(self, min_version: int, timeout_s: float) -> Published:
        """The newest version, once there is one of at least `min_version`. Raises TimeoutError."""

        def there() -> bool:
            newest = self._versions.newest
            return newest is not None and newest.version >= min_version

        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(there), timeout_s)
            assert self._versions.newest is not None
            return self._versions.newest


class StoreClient:
    """The store as a sampler sees it."""

    def __init__(self, store: ray.actor.ActorHandle, timeout_s: float) -> None:
        self._store, self._timeout_s = store, timeout_s

    def newest(self, min_version: int) -> Published:
        """The newest version, waiting for one of at least `min_version`."""
        published: Published = ray.get(self._store.newest.remote(min_version, self._timeout_s))
        return published
