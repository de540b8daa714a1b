"""What a run records step by step: its clock, metrics, warnings, checkpoints and summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import psutil

from rayrlhf.checkpoint import Checkpoints, is_due
from rayrlhf.metrics import MetricsLog, prefixed
from rayrlhf.pool import goodput
from rayrlhf.pool.status import Status
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.diagnostics import Diagnostics
from rayrlhf.ppo.handles import Collected
from rayrlhf.run_directory import RunDirectory
from rayrlhf.workers.credit import StepOutcome

Tell = Callable[[int, Mapping[str, float]], None]
"""(steps done, seconds of the learners by activity): what `rayrlhf status` shows."""


class Recorder:
    """Records a run, step by step."""

    def __init__(self, config: PPOConfig, directory: RunDirectory, log: MetricsLog) -> None:
        self._config, self._directory, self._log = config, directory, log
        self._clock = LoopClock()
        self._sampling = SamplingMetrics()
        self._diagnostics = Diagnostics(config.logprob_gap_limit, config.first_ratio_limit)
        self._checkpoints = Checkpoints(directory.path / "checkpoints", config.run.keep_checkpoints)
        self._metrics: dict[str, float] = {}  # of the step under way
        self._summary: dict[str, float] = {}
        self._tell: Tell | None = None

    def tell_with(self, tell: Tell) -> None:
        """Sets what is called with the loop's progress, before and after every step."""
        self._tell = tell

    def steps(self) -> Iterator[int]:
        """The steps of the run, from 0."""
        self._pass_on(0)
        for step in range(self._config.num_steps):
            yield step
            self._pass_on(step + 1)

    def enter(self, activity: str) -> None:
        """What the loop does from now on."""
        self._clock.enter(activity)

    def evaluates(self, step: int) -> bool:
        """Whether held-out prompts are answered before this step."""
        return step == 0 or is_due(step, self._config.evaluation.interval)

    def rollouts_file(self, step: int) -> str | None:
        """Where the step's rollouts are written as text, if they are."""
        due = is_due(step, self._config.save_rollouts_interval)
        return self._text_file(f"step-{step + 1:06d}") if due else None

    def heldout_file(self, step: int) -> str:
        """Where held-out responses before this step are written as text."""
        return self._text_file(f"heldout-{step:06d}")

    def evaluation(self, metrics: Mapping[str, float]) -> None:
        """Metrics of held-out responses: they belong to the step that follows."""
        self._metrics |= metrics

    def save(self, step: int, save: Callable[[str], None]) -> None:
        """Write a checkpoint after this step, if one is due."""
        done = step + 1
        if done == self._config.num_steps or is_due(done, self._config.checkpoint_interval):
            self.enter("save")
            self._checkpoints.write(done, save)

    def record(self, step: int, collected: Collected, outcome: StepOutcome, updates: Mapping[str, float]) -> None:
        """The end of a step."""
        self._metrics |= {**outcome.metrics, **updates, **self._sampling.of(collected), **self._clock.step()}
        if step == 0:
            self._metrics["time/submit_to_first_step_s"] = time.time() - psutil.Process().create_time()
        for line in self._diagnostics.warnings(self._metrics):
            self._log.say(line)
        self._write(step + 1)

    def finish(self) -> None:
        """Write what was evaluated after the last step, and the summary."""
        if self._metrics:
            self._write(self._config.num_steps)
        self._directory.write_summary(self._summary | {"num_steps": self._config.num_steps})

    def _write(self, steps_done: int) -> None:
        """The latest value of each metric is in the summary, and its first one under `first/`."""
        self._summary = {**prefixed("first", self._metrics), **self._summary, **self._metrics}
        self._log.write(steps_done, self._metrics)
        self._metrics = {}

    def _pass_on(self, steps_done: int) -> None:
        assert self._tell is not None, "tell_with comes first"
        self._tell(steps_done, self._clock.seconds())

    def _text_file(self, name: str) -> str:
        return str(self._directory.path / "rollouts" / f"{name}.parquet")


class LoopClock:
    """Seconds of the learners by activity, as the loop sees them; every second belongs to one."""

    def __init__(self) -> None:
        self._began = self._step_began = time.monotonic()
        self._watch = goodput.Stopwatch(goodput.START_UP, self._began)
        self._before: dict[str, float] = {}

    def enter(self, activity: str) -> None:
        """What the loop does from now on."""
        self._watch.switch(activity, time.monotonic())

    def seconds(self) -> dict[str, float]:
        """Since the run began, by activity."""
        return self._watch.seconds(time.monotonic())

    def step(self) -> dict[str, float]:
        """Metrics of the step that ends now."""
        now = time.monotonic()
        total = self._watch.seconds(now)
        spent = {activity: seconds - self._before.get(activity, 0.0) for activity, seconds in total.items()}
        start_up = spent.pop(goodput.START_UP, 0.0)
        step_s = now - self._step_began - start_up
        self._before, self._step_began = total, now
        shares = goodput.shares(total)
        return (
            {f"time/{activity}_s": seconds for activity, seconds in spent.items() if seconds}
            | {"time/step_s": step_s}
            | {f"goodput/learner_{activity}": share for activity, share in shares.items()}
        )


class SamplingMetrics:
    """Compares the pool's totals from step to step."""

    def __init__(self) -> None:
        self._tokens = 0
        self._seconds: dict[str, float] = {}

    def of(self, collected: Collected) -> dict[str, float]:
        """Metrics of the step that trained on `collected`."""
        status = collected.status
        tokens = status.tokens - self._tokens
        generating = self._spent(status, goodput.GENERATE) + self._spent(status, goodput.REDONE_PREFILL)
        loading = self._spent(status, goodput.LOAD_WEIGHTS)
        self._tokens, self._seconds = status.tokens, dict(status.seconds)
        return status.metrics() | {
            "engine/tokens": float(tokens),
            "engine/tokens_per_s": tokens / generating if generating > 0 else 0.0,
            "ledger/left_out": float(collected.num_left_out),
            "weights/load_s": loading / max(1, len(status.samplers)),
        }

    def _spent(self, status: Status, activity: str) -> float:
        return status.seconds.get(activity, 0.0) - self._seconds.get(activity, 0.0)
