"""Adapters on a local disk, where vLLM reads them: it takes a LoRA from a folder in peft's format only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rayrlhf.engines.base import Adapters
from rayrlhf.models.lora import PEFT_PREFIX
from rayrlhf.weights.buckets import Bucket


@contextmanager
def adapter_folder(buckets: Iterable[Bucket], adapters: Adapters) -> Iterator[Path]:
    """A folder with the adapters in `buckets` (`PolicyLearner.export`), for as long as the context is open."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory(prefix="rayrlhf-adapter-") as name:
        folder = Path(name)
        tensors = {f"{PEFT_PREFIX}{name}": tensor for bucket in buckets for name, tensor in bucket.tensors()}
        save_file(tensors, folder / "adapter_model.safetensors")
        settings = {
            "peft_type": "LORA",
            "r": adapters.rank,
            "lora_alpha": adapters.alpha,
            "target_modules": list(adapters.layers),
            "bias": "none",
        }
        (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
        yield folder
