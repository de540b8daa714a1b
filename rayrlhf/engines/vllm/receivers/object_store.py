"""Receiver of `object_store`: loads the buckets that the sampler fetched while its engine was generating.

They are views of the object store's memory. vLLM's layerwise reload takes checkpoint names and shapes, whatever the
worker packs or shards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from rayrlhf.weights.buckets import Bucket


@dataclass
class ObjectStoreInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: there is no collective."""


@dataclass
class ObjectStoreUpdateInfo(WeightTransferUpdateInfo):
    """All of one version."""

    buckets: list[Bucket] = field(default_factory=list)


class ObjectStoreReceiver(WeightTransferEngine[ObjectStoreInitInfo, ObjectStoreUpdateInfo]):
    """Receiving side, one per vLLM worker."""

    init_info_cls = ObjectStoreInitInfo
    update_info_cls = ObjectStoreUpdateInfo

    def init_transfer_engine(self, init_info: ObjectStoreInitInfo) -> None:
        """No rendezvous: references need none."""

    def start_weight_update(self) -> None:
        """Put the model's parameters in checkpoint layout, layer by layer."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ObjectStoreUpdateInfo) -> None:
        """Load bucket after bucket."""
        for bucket in update_info.buckets:
            self.model.load_weights(bucket.tensors())

    def finish_weight_update(self) -> None:
        """Put the parameters back in the layout that the kernels use."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is held between updates."""
