"""What it takes to bring a LoRA policy's new version to a sampler: merged weights beside adapters alone.

`python benchmarks/weight_sync.py [--model FOLDER] [--rank R] [--versions N] [--rounds N] [--out FILE]`. It starts a
cluster of its own. Learner and sampler of one way share a process, one way after the other, in `rounds`; metrics are
medians over versions after the first.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, get_args

import ray
import typer
from rich.table import Table

from rayrlhf.cluster import local
from rayrlhf.metrics import console
from rayrlhf.ppo.config import PolicyLora

ROOT = Path(__file__).parents[1]
WAYS: tuple[str, ...] = get_args(PolicyLora.model_fields["send"].annotation)
PROMPT_TOKENS, RESPONSE_TOKENS, NUM_PROMPTS = 64, 32, 16


@ray.remote(num_cpus=1, max_calls=1)
def measure(model: str, way: str, rank: int, versions: int) -> dict[str, Any]:
    """Medians of one way: bytes, seconds to export, to put into the object store and to load, and tokens per second."""
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    import torch

    from rayrlhf.algorithms import PPO
    from rayrlhf.engines import Adapters, EngineInputs, Sampling, VllmEngineConfig
    from rayrlhf.models.folder import skeleton
    from rayrlhf.models.lora import target_names
    from rayrlhf.pool.leases import Lease
    from rayrlhf.training.model_trainer import TrainingConfig
    from rayrlhf.training.parallel import Ranks
    from rayrlhf.types import Prompt, Sample
    from rayrlhf.workers.learner import PolicyLearner
    from rayrlhf.workers.sampler import Sampler, Weights

    torch.set_num_threads(1)
    lora = PolicyLora.model_validate({"rank": rank, "send": way})
    learner = PolicyLearner(model, TrainingConfig(lora=lora), PPO(), 1, Ranks(), sends_adapters=way == "adapters")
    sent = Adapters(rank, lora.alpha, tuple(target_names(skeleton(model), lora))) if way == "adapters" else None
    sampling = Sampling(max_completion_length=RESPONSE_TOKENS)
    engine = VllmEngineConfig().start(EngineInputs(model, PROMPT_TOKENS + RESPONSE_TOKENS, sampling, 0, sent))
    sampler = Sampler(engine, "continue")
    requests = tuple(
        Sample(Prompt(i, tuple(range(100 + i, 100 + i + PROMPT_TOKENS))), 0, i) for i in range(NUM_PROMPTS)
    )
    rows: list[dict[str, float]] = []
    for version in range(versions + 1):
        with torch.no_grad():
            for parameter in learner.trainer.trained.parameters():
                parameter.add_(1e-3 * torch.randn_like(parameter))
        times = [time.perf_counter()]
        buckets = list(learner.export(None))
        size = sum(array.nbytes for bucket in buckets for array in bucket.arrays)
        times.append(time.perf_counter())
        references = [ray.put(bucket) for bucket in buckets]
        del buckets
        times.append(time.perf_counter())
        sampler.offer(Weights(version, ray.get(references)))
        sampler.step()
        times.append(time.perf_counter())
        before = sampler.tokens
        sampler.add(Lease(version, 0, requests, sampling, min_version=0, deadline=math.inf))
        while not sampler.step():
            pass
        tokens_per_s = (sampler.tokens - before) / (time.perf_counter() - times[-1])
        export, put, load = (after - before for before, after in itertools.pairwise(times))
        rows.append({"bytes": size, "export_s": export, "put_s": put, "load_s": load, "tokens_per_s": tokens_per_s})
    return {"send": way, **{name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}}


def show(results: list[dict[str, Any]]) -> None:
    """The metrics as a table."""
    table = Table("send", "MB", "export s", "put s", "load s", "sampled tokens/s")
    for row in results:
        seconds = [f"{row[name]:.3f}" for name in ("export_s", "put_s", "load_s")]
        table.add_row(row["send"], f"{row['bytes'] / 1e6:.1f}", *seconds, f"{row['tokens_per_s']:.0f}")
    console.print(table)


def main(
    model: Annotated[Path, typer.Option(help="folder of the starting model")] = ROOT / "runs/smollm2/base",
    rank: Annotated[int, typer.Option(help="of the adapters")] = 8,
    versions: Annotated[int, typer.Option(help="versions to measure, after one to warm up")] = 3,
    rounds: Annotated[int, typer.Option(help="how often to measure each way, in turn")] = 2,
    out: Annotated[Path, typer.Option(help="JSON file to write")] = Path("benchmarks/out/weight_sync.json"),
) -> None:
    """Time both ways to send a LoRA policy to a sampler."""
    with tempfile.TemporaryDirectory(prefix="rb", ignore_cleanup_errors=True) as folder:
        os.environ |= {"RAYRLHF_STATE": f"{folder}/cluster.json"}
        local.up(port=local.free_port(), dashboard_port=local.free_port())
        try:
            local.connect()
            results = [ray.get(measure.remote(str(model.absolute()), way, rank, versions)) for way in WAYS * rounds]
        finally:
            ray.shutdown()
            local.down()
    show(results)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
