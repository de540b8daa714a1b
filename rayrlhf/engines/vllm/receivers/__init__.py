"""The receiving side of `rayrlhf.weights` in vLLM: a weight-transfer engine for each kind of transport.

Another transport is one module here and one line in RECEIVERS.
"""

from __future__ import annotations

from typing import Any

from vllm.distributed.weight_transfer.base import WeightTransferEngine
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from rayrlhf.engines.vllm.receivers.object_store import ObjectStoreReceiver

RECEIVERS: dict[str, type[WeightTransferEngine[Any, Any]]] = {"object_store": ObjectStoreReceiver}


def register(kind: str) -> str:
    """Make the receiver of `kind` known to vLLM in this process; its name there. Safe to call again."""
    backend = f"rayrlhf_{kind}"
    if backend not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(backend, RECEIVERS[kind])
    return backend
