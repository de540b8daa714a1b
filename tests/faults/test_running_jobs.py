"""PPO with real vLLM samplers while its processes are killed, stopped and resized: nothing is lost, nothing twice."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.util import state

from rayrlhf.config import UserError
from rayrlhf.pool.status import SamplerStatus, Status
from rayrlhf.ppo import pool_actor
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.loop import run_ppo
from rayrlhf.ppo.pool_actor import LoopStatus

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.usefixtures("local_cluster"), pytest.mark.timeout(1800)]

SAMPLE = Path(__file__).parents[2] / "data/sample"
BATCH = 48
PATIENCE_S = 600.0


class Job:
    """A PPO run in a thread of this process, seen through `rayrlhf status`'s eyes."""

    def __init__(self, config: PPOConfig) -> None:
        self.config, self.name = config, config.run.name
        self.folder: Path | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.folder = run_ppo(self.config).path
        except BaseException as error:
            self.error = error

    def status(self) -> tuple[LoopStatus, Status]:
        return pool_actor.status(self.name)

    def wait_for(self, condition: Callable[[LoopStatus, Status], Any]) -> Any:
        """What `condition` gives, once it is true."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.error is not None:
                raise self.error
            try:
                if found := condition(*self.status()):
                    return found
            except UserError:
                assert self.folder is None, "the run ended before what the test waits for"
            time.sleep(0.02)
        raise AssertionError(f"not seen within {PATIENCE_S:g} s; the last status was {self.status()}")

    def metrics(self) -> list[dict[str, float]]:
        """Of each step, once the run has ended."""
        assert self.folder is not None
        rows = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [row for row in rows if "ledger/trained" in row]


class Gate:
    """A reward function that waits while the gate is closed: so a test sees what it waits for before the run ends."""

    def __init__(self, folder: Path) -> None:
        self._closed = folder / "closed"
        self._file = folder / "gated.py"
        self._file.write_text(
            "import time\n"
            "from pathlib import Path\n"
            "def score(response):\n"
            f"    while Path({str(self._closed)!r}).exists():\n"
            "        time.sleep(0.05)\n"
            "    return len(set(response))\n"
        )

    @property
    def reward(self) -> dict[str, Any]:
        source = {"kind": "function", "path": f"{self._file}:score", "timeout_s": PATIENCE_S * 2, "max_concurrency": 1}
        return {"source": source, "num_cpus": 0.25}

    def close(self) -> None:
        self._closed.touch()

    def open(self) -> None:
        self._closed.unlink(missing_ok=True)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@contextmanager
def job(model: str, name: str, gate: Gate, **changes: Any) -> Iterator[Job]:
    """Runs while the block does; joined, and its error raised, at the end."""
    tree = {
        "run": {"name": name, "overwrite": True, "keep_checkpoints": 1},
        "model": model,
        "reward": gate.reward,
        "sampler": {"num_workers": 2, "num_cpus": 0.5, "engine": {"kv_cache_gib": 0.1, "max_num_seqs": 4}},
        "reference": {"num_cpus": 0.25},
        "policy": {"num_cpus": 0.25, "optimizer": {"learning_rate": 1e-3}},
        "algorithm": {"kind": "grpo", "minibatch_size": 24, "kl_coef": 0.02},
        "sampling": {"max_completion_length": 96},
        "data": {"train": [str(SAMPLE / "prompts.jsonl")], "max_prompt_tokens": 100, "heldout_share": 0.02},
        "num_steps": 3,
        "batch_size": BATCH,
        "num_generations": 2,
        "evaluation": {"num_prompts": 8},
    }
    started = Job(PPOConfig.model_validate(tree | changes))
    thread = threading.Thread(target=started.run)
    gate.close()
    thread.start()
    try:
        started.wait_for(lambda _, rollouts: sum(s.phase == "ready" for s in rollouts.samplers) == rollouts.wanted)
        gate.open()
        yield started
    finally:
        gate.open()
        thread.join(PATIENCE_S * 2)
    assert not thread.is_alive(), "the run did not end"
    if started.error is not None:
        raise started.error


def sampling(rollouts: Status) -> SamplerStatus | None:
    """A sampler at work."""
    return next((s for s in rollouts.samplers if s.leases and s.pid), None)


def busy(step: int) -> Callable[[LoopStatus, Status], SamplerStatus | None]:
    """A sampler at work after `step` steps."""
    return lambda loop, rollouts: sampling(rollouts) if loop.step == step else None


def kill_actor(class_name: str, name: str = "") -> None:
    """SIGKILL to the process of an actor of this cluster."""
    address = ray.get_runtime_context().gcs_address
    wanted = [("class_name", "=", class_name), ("state", "=", "ALIVE")]
    (actor,) = [actor for actor in state.list_actors(address, filters=wanted) if actor["name"].startswith(name)]
    os.kill(actor["pid"], signal.SIGKILL)


def assert_exactly_once(rows: list[dict[str, float]], num_steps: int = 3) -> None:
    assert [row["ledger/trained"] for row in rows] == [BATCH] * num_steps
    assert all(row.get("engine/logprob_gap_max", 0.0) <= 1e-4 for row in rows)


def test_weight_store_scorer_and_a_sampler_may_die_at_work_and_cost_nothing_but_their_share(
    model: str, gate: Gate
) -> None:
    with job(model, "killed", gate, num_steps=4) as run:
        run.wait_for(busy(step=1))
        gate.close()
        kill_actor("WeightStore")
        run.wait_for(lambda _, rollouts: not rollouts.outlook["leased"] and not rollouts.outlook["pending"])
        kill_actor("Host", "reward-")
        gate.open()
        victim = run.wait_for(busy(step=2))
        gate.close()
        os.kill(victim.pid, signal.SIGKILL)
        run.wait_for(lambda _, rollouts: rollouts.lost == 1)
        successor = run.wait_for(
            lambda loop, rollouts: next((s for s in rollouts.samplers if s.id > 1 and s.version == loop.version), None)
        )
        gate.open()
        run.wait_for(lambda _, rollouts: any(s.id == successor.id and s.tokens for s in rollouts.samplers))
        _, rollouts = run.status()
        wall = rollouts.wanted * rollouts.uptime_s
        assert abs(sum(rollouts.seconds.values()) - wall) <= 0.01 * wall, rollouts.seconds
    rows = run.metrics()
    assert_exactly_once(rows, num_steps=4)
    assert [row["engine/version_min"] for row in rows] == [0, 1, 2, 3]


def test_a_sampler_that_hangs_is_given_up_and_ended(model: str, gate: Gate) -> None:
    with job(model, "hanging", gate, rollouts={"silence_timeout_s": 3.0, "max_staleness": 1}, num_steps=4) as run:
        victim = run.wait_for(busy(step=1))
        process = psutil.Process(victim.pid)
        process.suspend()
        run.wait_for(lambda _, rollouts: rollouts.lost == 1)
        process.wait(PATIENCE_S)
    rows = run.metrics()
    assert_exactly_once(rows, num_steps=4)
    assert all(
        step - 1 <= row["engine/version_min"] <= row["engine/version_max"] <= step for step, row in enumerate(rows)
    )
    assert any(row["engine/staleness_mean"] > 0 for row in rows)


def three_ready(_: LoopStatus, rollouts: Status) -> tuple[SamplerStatus, ...] | None:
    return rollouts.samplers if sum(s.phase == "ready" for s in rollouts.samplers) == 3 else None


def test_a_running_job_grows_and_shrinks_and_survives_the_loss_of_all_samplers(model: str, gate: Gate) -> None:
    sampler = {"num_workers": 1, "num_cpus": 0.5, "engine": {"kv_cache_gib": 0.1, "max_num_seqs": 4}}
    with job(model, "resized", gate, sampler=sampler, num_steps=4) as run:
        run.wait_for(lambda loop, _: loop.step == 1)
        gate.close()
        with pytest.raises(UserError, match="a run named 'resized' is alive on this cluster"):
            run_ppo(run.config)  # though it may overwrite the folder of one that has ended
        assert pool_actor.scale("resized", 3) == 1
        starting = run.wait_for(lambda _, now: next((s for s in now.samplers if s.phase == "starting" and s.pid), None))
        os.kill(starting.pid, signal.SIGKILL)
        idle = run.wait_for(three_ready)[0]
        os.kill(idle.pid, signal.SIGKILL)
        run.wait_for(lambda _, rollouts: rollouts.lost == 2)
        three = run.wait_for(three_ready)
        gate.open()
        run.wait_for(lambda _, rollouts: sum(s.leases > 0 for s in rollouts.samplers) == 3)
        for sampler_status in three:
            os.kill(sampler_status.pid, signal.SIGKILL)
        run.wait_for(lambda _, rollouts: rollouts.lost == 5 and sampling(rollouts))
        assert pool_actor.scale("resized", 1) == 3
        run.wait_for(lambda _, rollouts: len(rollouts.samplers) == 1)
    assert_exactly_once(run.metrics(), num_steps=4)


def test_only_a_run_that_is_alive_can_be_resized(model: str) -> None:
    with pytest.raises(UserError, match="cannot scale to 0 samplers: a run needs 1 or more"):
        pool_actor.scale("resized", 0)
    with pytest.raises(UserError, match="run 'resized' is not alive on this cluster: it has ended"):
        pool_actor.scale("resized", 2)
    with pytest.raises(UserError, match=r"there is no run 'resizd' in .*; alive on this cluster: none"):
        pool_actor.status("resizd")
