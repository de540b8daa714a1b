"""What the rollout pool costs: dispatch with fake engines, overlap of generation and training, and real engines.

`python benchmarks/pool.py [--model DIR] [--out FILE]`. Three tables, each a ratio inside one run:

1. samples that the pool dispatches and accounts per second with 1 to 64 fake samplers, against as many times one;
2. max(generate, train) / step with balanced fakes and staleness 1: 1 is perfect overlap;
3. tokens per second of one real vLLM sampler behind the pool, with frozen weights and with new ones for every batch,
   against plain `LLM.generate` of the same prompts in the same kind of process. It starts a cluster of its own.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import typer
from rich.table import Table

from rayrlhf.cluster import local
from rayrlhf.cluster.actor_group import environment
from rayrlhf.cluster.placement import PlacementConfig, Reservation, plan_placement
from rayrlhf.engines import Completion, Sampling
from rayrlhf.metrics import console
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.models.texts import read_texts
from rayrlhf.pool.config import RolloutsConfig
from rayrlhf.pool.leases import Answer, Lease, Report, SampleBatch
from rayrlhf.pool.pool import Pool
from rayrlhf.pool.runner import Runner
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.factories import sampler_factory
from rayrlhf.ppo.pool_actor import end_pool, start_pool
from rayrlhf.ppo.sampler_actor import Launcher
from rayrlhf.ppo.weight_store import WeightStore
from rayrlhf.types import Prompt, Rollouts, Sample
from rayrlhf.workers.sampler import assemble

ROOT = Path(__file__).parents[1]
SIZES = (1, 4, 16, 48, 64)
RATE = 100.0
"""Samples that one fake sampler generates per second."""
SLOTS = 32
OVERLAP_SAMPLES = 400
"""Of a step of the overlap: two seconds to generate."""
FAKE = Sampling(max_completion_length=16)


class FakeSampler:
    """Generates RATE samples per second, SLOTS at a time, and reports what is done when it is polled."""

    def __init__(self, seed: int) -> None:
        self.version = 0
        self._rng = random.Random(seed)
        self._free = [0.0] * SLOTS
        self._ends: list[tuple[float, int, Answer]] = []

    async def placed(self) -> None:
        """At once."""

    async def ready(self) -> None:
        """At once."""

    async def assign(self, leases: tuple[Lease, ...]) -> None:
        """Each sample takes the slot that is free first."""
        for lease in leases:
            end = 0.0
            for _ in lease.samples:
                end = max(heapq.heappop(self._free), time.monotonic()) + self._rng.uniform(0.5, 1.5) * SLOTS / RATE
                heapq.heappush(self._free, end)
            heapq.heappush(self._ends, (end, lease.id, Answer(lease.id, self.version, response(lease))))

    async def report(self, timeout_s: float) -> Report:
        """After a step of the engine."""
        await asyncio.sleep(min(timeout_s, 0.02))
        done = []
        while self._ends and self._ends[0][0] <= time.monotonic():
            done.append(heapq.heappop(self._ends)[2])
        return Report(self.version, tuple(done))

    def kill(self) -> None:
        """Nothing to end."""


def response(lease: Lease) -> Rollouts:
    length = FAKE.max_completion_length
    completion = Completion(tuple(range(length)), (-1.0,) * length, True, (0,) * length)
    return assemble(lease.samples, [completion] * len(lease.samples))


def batch(number: int, size: int, min_version: int = 0) -> SampleBatch:
    samples = tuple(Sample(Prompt(index, tuple(range(16))), 0, seed=index) for index in range(size))
    return SampleBatch(number, number, samples, FAKE, min_version)


def runner(num_samplers: int) -> tuple[Runner, Pool, list[FakeSampler]]:
    pool = Pool(RolloutsConfig().pool(num_samplers, SLOTS, start_s=60), time.monotonic())
    fakes: list[FakeSampler] = []

    def launch(member: int) -> FakeSampler:
        fakes.append(FakeSampler(member))
        return fakes[-1]

    return Runner(pool, launch), pool, fakes


async def dispatch(num_samplers: int, seconds: float) -> float:
    """Samples per second, from submission to ledger, with batches of two seconds' work and one always ahead."""
    size = int(2 * RATE * num_samplers)
    work, pool, _ = runner(num_samplers)
    await work.ready()
    work.submit(batch(0, size))
    work.submit(batch(1, size))
    await settle(work, pool, 0)
    began = time.monotonic()
    number = 1
    while time.monotonic() - began < seconds:
        work.submit(batch(number + 1, size))
        await settle(work, pool, number)
        number += 1
    speed = size * (number - 1) / (time.monotonic() - began)
    work.close()
    return speed


async def settle(work: Runner, pool: Pool, number: int) -> Rollouts:
    rollouts = Rollouts.concat(await work.take(number))
    pool.settle(number, {})
    return rollouts


async def overlap(num_steps: int) -> float:
    """max(generate, train) / step, with two samplers, staleness 1, and as long to train as to generate."""
    generate_s = await steps_of(num_steps, max_staleness=0, train_s=0.0)
    return generate_s / await steps_of(num_steps, max_staleness=1, train_s=generate_s)


async def steps_of(num_steps: int, max_staleness: int, train_s: float) -> float:
    """Seconds of a step after the first two. The learners train for `train_s`; with staleness the next step is
    generated meanwhile."""
    work, pool, fakes = runner(2)
    await work.ready()
    submitted = 0
    began = 0.0
    for step in range(num_steps + 2):
        began = time.monotonic() if step == 2 else began
        for fake in fakes:
            fake.version = step
        while submitted <= step + max_staleness:
            work.submit(batch(submitted, OVERLAP_SAMPLES, min_version=max(0, submitted - max_staleness)))
            submitted += 1
        await settle(work, pool, step)
        await asyncio.sleep(train_s)
    work.close()
    return (time.monotonic() - began) / num_steps


@ray.remote(num_cpus=1)
class Publisher:
    """Stands for the policy's learners: exports the weights of a folder."""

    def __init__(self, folder: str) -> None:
        from rayrlhf.models import Policy

        self._policy = Policy.load(folder)

    def export(self, dtype: Any) -> Iterator[Any]:
        """Buckets, then how many there were."""
        from rayrlhf.weights.buckets import pack

        count = 0
        for bucket in pack(self._policy.weights(), dtype):
            count += 1
            yield bucket
        yield count


@ray.remote(num_cpus=1)
def plain_generate(config: PPOConfig, batches: list[list[Sample]]) -> list[float]:
    """Tokens per second of `LLM.generate` on each batch."""
    import torch
    from vllm import LLM, SamplingParams

    torch.set_num_threads(1)
    engine = config.sampler.engine
    model = LLM(
        model=config.model,
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=engine.max_num_seqs,
        enforce_eager=engine.enforce_eager,
        kv_cache_memory_bytes=int(engine.kv_cache_gib * 2**30),
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
    )
    length = config.sampling.max_completion_length
    speeds = []
    for samples in batches:
        prompts = [{"prompt_token_ids": list(sample.prompt.token_ids)} for sample in samples]
        settings = [
            SamplingParams(max_tokens=length, ignore_eos=True, seed=sample.seed, logprobs=0, detokenize=False)
            for sample in samples
        ]
        began = time.monotonic()
        outputs = model.generate(prompts, settings, use_tqdm=False)
        num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        speeds.append(num_tokens / (time.monotonic() - began))
    return speeds


def behind_pool(config: PPOConfig, batches: list[list[Sample]], publish_each: bool) -> list[float]:
    """Tokens per second of each batch, from its submission until its rollouts are there; publishing counts."""
    plan = plan_placement({"sampler": config.sampler}, ())
    reservation = Reservation(plan, PlacementConfig())
    store: Any = WeightStore.remote()  # type: ignore[attr-defined]
    publisher: Any = Publisher.remote(config.model)  # type: ignore[attr-defined]
    factory = sampler_factory(config, store, eos_token_id=NO_EOS, max_model_len=128)
    pool = start_pool(config, Launcher(reservation, config.sampler, factory))
    speeds = []
    try:
        ray.get([pool.ready.remote(), store.publish.remote(0, [publisher], None)])
        for number, samples in enumerate(batches):
            began = time.monotonic()
            if publish_each and number:
                ray.get(store.publish.remote(number, [publisher], None))
            wanted = SampleBatch(number, number, tuple(samples), config.sampling, number if publish_each else 0)
            ray.get(pool.submit.remote(wanted))
            _, reference = pool.take.options(num_returns=2).remote(number)
            rollouts: Rollouts = ray.get(reference)
            speeds.append(float(rollouts.response_lengths.sum()) / (time.monotonic() - began))
    finally:
        end_pool(pool, config.run.name)
        for actor in (store, publisher):
            ray.kill(actor)
        reservation.release()
    return speeds


NO_EOS = 1999
"""A token that the model below hardly ever samples: every response is as long as it may be."""


def real(model: Path | None, num_batches: int, rounds: int, folder: Path) -> dict[str, float]:
    """Tokens per second: medians over the batches after the first, and over rounds in which each way has its turn."""
    if model is None:
        model = folder / "model"
        shape = ModelShape(vocab_size=2000, hidden_size=256, num_layers=4, max_length=128)
        init_model_folder(model, shape, read_texts(sorted((ROOT / "data/sample").glob("*.jsonl"))))
    config = PPOConfig.model_validate(
        {
            "run": {"name": "bench/pool", "overwrite": True},
            "model": str(model),
            "reward": {"source": {"kind": "rules", "rules": [{"kind": "length", "max": 10}]}},
            "sampler": {"num_cpus": 1, "engine": {"kv_cache_gib": 0.5, "max_num_seqs": 64}},
            "sampling": {"max_completion_length": 64},
            "data": {"train": ["data/sample/prompts.jsonl"]},
        }
    )
    rng = np.random.default_rng(0)
    batches = [
        [Sample(Prompt(i, tuple(rng.integers(10, 1900, 24).tolist())), 0, seed=i) for i in range(128)]
        for _ in range(num_batches + 1)
    ]
    variables = {"env_vars": environment(0, 1) | config.sampler.engine.environment()}
    plain = plain_generate.options(runtime_env=variables)  # type: ignore[attr-defined]
    ways: dict[str, Callable[[], list[float]]] = {
        "plain": lambda: ray.get(plain.remote(config, batches)),
        "frozen": lambda: behind_pool(config, batches, publish_each=False),
        "synced": lambda: behind_pool(config, batches, publish_each=True),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            speeds[name].append(statistics.median(measure()[1:]))
    return {name: statistics.median(found) for name, found in speeds.items()}


def main(
    seconds: Annotated[float, typer.Option(help="for each number of fake samplers")] = 8.0,
    steps: Annotated[int, typer.Option(help="of the overlap, and batches of the real engines")] = 8,
    rounds: Annotated[int, typer.Option(help="of the real engines: a machine's speed drifts")] = 3,
    model: Annotated[Path | None, typer.Option(help="folder for the real engines; a small one is made")] = None,
    out: Annotated[Path, typer.Option(help="JSON file to write")] = Path("benchmarks/out/pool.json"),
) -> None:
    """Measure the rollout pool."""
    os.chdir(ROOT)
    speeds = {size: asyncio.run(dispatch(size, seconds)) for size in SIZES}
    table = Table("samplers", "samples/s", "of linear", title="dispatched and accounted, fake engines")
    for size, speed in speeds.items():
        table.add_row(str(size), f"{speed:,.0f}", f"{speed / (size * RATE):.3f}")
    console.print(table)
    efficiency = asyncio.run(overlap(steps))
    console.print(f"overlap: max(generate, train) / step = {efficiency:.3f}")
    with tempfile.TemporaryDirectory(prefix="rb", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        os.environ |= {"RAYRLHF_STATE": str(folder / "cluster.json"), "RAYRLHF_RUNS": str(folder / "runs")}
        local.up(port=local.free_port(), dashboard_port=local.free_port(), num_cpus=2)
        try:
            local.connect()
            tokens = real(model, steps, rounds, folder)
        finally:
            ray.shutdown()
            local.down()
    table = Table("", "tokens/s", "of LLM.generate", title="one vLLM sampler, 128 prompts x 64 tokens a batch")
    for name, speed in tokens.items():
        table.add_row(name, f"{speed:,.0f}", f"{speed / tokens['plain']:.3f}")
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    results = {"rate": RATE, "samples_per_s": speeds, "overlap": efficiency, "tokens_per_s": tokens}
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
