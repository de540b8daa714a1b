"""Training on a fixed data set with Ray Train: the loop that SFT, reward model and DPO share."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import ray
import ray.train
import ray.train.torch

from rayrlhf.checkpoint import is_due
from rayrlhf.cluster.actor_group import WorkerError
from rayrlhf.cluster.connection import connect
from rayrlhf.cluster.mailbox import deliver_to
from rayrlhf.cluster.placement import check_capacity, cluster_nodes, plan_placement
from rayrlhf.config import ConfigError
from rayrlhf.data.ingest.records import Kind
from rayrlhf.data.tokens.inputs import prepare_with_progress
from rayrlhf.data.tokens.prepare import Part
from rayrlhf.metrics import MetricsLog, prefixed
from rayrlhf.models import load_tokenizer
from rayrlhf.offline.config import OfflineConfig
from rayrlhf.offline.inputs import check_models
from rayrlhf.run_directory import RunDirectory
from rayrlhf.training.batching import epoch_batches
from rayrlhf.training.offline_worker import OfflineWorker, seed_step
from rayrlhf.training.parallel import Ranks

ConfigT = TypeVar("ConfigT", bound=OfflineConfig)
Builder = Callable[[Ranks], OfflineWorker]


@dataclass(frozen=True)
class Stage(Generic[ConfigT]):
    """What distinguishes one offline stage from another."""

    title: str
    shown: tuple[str, ...]
    """Metrics on the console line."""
    kind: Callable[[ConfigT], Kind]
    """The kind of records to read."""
    build: Callable[[ConfigT, int, Part, Part, Ranks], OfflineWorker]
    """(config, optimizer steps, training rows, held-out rows, ranks) → one rank's worker."""
    check: Callable[[ConfigT, Part], None] = lambda config, training: None
    """Raises ConfigError if the settings do not fit the training rows."""


def run_offline(stage: Stage[ConfigT], config: ConfigT) -> RunDirectory:
    """Check the input, then train `config.model`; the result is in `model/` of the run directory."""
    config = config.resolved()
    check_models(config)
    tokenizer = load_tokenizer(config.model)
    data = prepare_with_progress(config.data, stage.kind(config), tokenizer, config.data, config.run.seed)
    training, heldout = Part(data.train, data.train_values), Part(data.heldout, data.heldout_values)
    stage.check(config, training)
    connect_for(config)
    directory = RunDirectory.create(config.run, config, [*config.models.values(), *config.data.files])
    directory.write_lineage(data.sources, config.models)
    directory.write_data_report(data.account.as_dict(), data.rejected)
    schedule = schedule_of(config, len(data.train[0]))
    refs = [ray.put(training), ray.put(heldout)]  # one copy per node, read in place by all its workers

    def build(ranks: Ranks) -> OfflineWorker:
        own_training, own_heldout = ray.get(refs)
        return stage.build(config, schedule.total_steps, own_training, own_heldout, ranks)

    with MetricsLog(directory.path, stage.title, schedule.total_steps, stage.shown) as log:
        log.say(f"data: {data.account}; {len(data.train[0])} to train on, {len(data.heldout[0])} held out")
        for note, count in data.account.notes.items():
            log.say(f"data: {count} {note}")
        for columns in data.account.unread:
            log.say(f"data: {columns}")
        log.say(f"run: {directory.path}")
        first, last = train(config, directory, log, schedule, build)
    directory.write_summary(
        {"rows": data.account.kept, "rejected": dict(data.account.rejected)} | prefixed("first", first) | last
    )
    return directory


@dataclass(frozen=True)
class Schedule:
    """Which rows each step trains on, and when it evaluates and saves."""

    num_rows: int
    batch_size: int
    num_epochs: int
    max_steps: int | None
    evaluation_interval: int
    checkpoint_interval: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_rows / self.batch_size)

    @property
    def total_steps(self) -> int:
        steps = self.num_epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def rows(self, step: int) -> np.ndarray:
        """Rows of optimizer step `step`, the same after a restart."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return epoch_batches(self.num_rows, self.batch_size, (self.seed, epoch))[index]

    def evaluates_after(self, steps_done: int) -> bool:
        return steps_done == self.total_steps or is_due(steps_done, self.evaluation_interval)

    def saves_after(self, steps_done: int) -> bool:
        return steps_done == self.total_steps or is_due(steps_done, self.checkpoint_interval)


def schedule_of(config: OfflineConfig, num_rows: int) -> Schedule:
    """The schedule of a configuration for a data set of `num_rows` rows."""
    return Schedule(
        num_rows=num_rows,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        max_steps=config.max_steps,
        evaluation_interval=config.evaluation_interval,
        checkpoint_interval=config.checkpoint_interval,
        seed=config.run.seed,
    )


def connect_for(config: OfflineConfig) -> None:
    """Connect to the cluster and check that it can hold the workers.

    Raises ClusterError, PlacementError, or ConfigError for workers that reserve nothing.
    """
    connect()
    roles = {"workers": config.workers}
    check_capacity(plan_placement(roles, ()), roles, cluster_nodes())
    if config.workers.num_cpus == 0 and config.workers.num_gpus == 0:
        raise ConfigError("workers.num_cpus and workers.num_gpus are both 0: workers must reserve one of them")


def train(
    config: OfflineConfig,
    directory: RunDirectory,
    log: MetricsLog,
    schedule: Schedule,
    build: Builder,
) -> tuple[dict[str, float], dict[str, float]]:
    """Run the stage on Ray Train; the model ends up in `directory/model`.

    Returns (metrics before the first step, the last value of each metric). Raises WorkerError if workers failed more
    than `max_failures` times.
    """
    first: dict[str, float] = {}
    last: dict[str, float] = {}

    def receive(step: int, metrics: dict[str, float]) -> None:
        if step == 0:
            first.update(metrics)
        last.update(metrics)
        log.write(step, metrics)

    resources = {k: v for k, v in (("CPU", config.workers.num_cpus), ("GPU", config.workers.num_gpus)) if v}
    with deliver_to(receive) as mailbox:
        trainer = ray.train.torch.TorchTrainer(
            _train_loop,
            train_loop_config={
                "build": build,
                "schedule": schedule,
                "mailbox": mailbox,
                "num_threads": config.workers.threads,
            },
            scaling_config=ray.train.ScalingConfig(
                num_workers=config.workers.num_workers,
                use_gpu=config.workers.num_gpus > 0,
                resources_per_worker=resources,
            ),
            run_config=ray.train.RunConfig(
                name="checkpoints",
                storage_path=str(directory.path),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=config.run.keep_checkpoints),
                failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise WorkerError(f"training failed: {_innermost(error)}") from error
    assert result.checkpoint is not None, "the last step always saves"
    shutil.copytree(Path(result.checkpoint.path) / "model", directory.path / "model", dirs_exist_ok=True)
    return first, last


def _train_loop(loop: dict[str, Any]) -> None:
    """Runs in every Ray Train worker."""
    import torch

    torch.set_num_threads(loop["num_threads"])
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    torch.manual_seed(loop["schedule"].seed)
    schedule: Schedule = loop["schedule"]
    worker: OfflineWorker = loop["build"](ranks)

    def post(step: int, metrics: dict[str, float]) -> None:
        if ranks.rank == 0:
            ray.get(loop["mailbox"].post.remote(step, metrics))

    start = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            start = worker.restore(Path(folder))["step"]
    else:
        post(0, worker.evaluate())
    for step in range(start, schedule.total_steps):
        seed_step(schedule.seed, step, ranks.rank)
        metrics = worker.train_step(schedule.rows(step))
        if schedule.evaluates_after(step + 1):
            metrics |= worker.evaluate()
        post(step + 1, metrics)
        if schedule.saves_after(step + 1):
            _save(worker, step + 1, metrics, ranks)


def _save(worker: OfflineWorker, steps_done: int, metrics: dict[str, float], ranks: Ranks) -> None:
    with tempfile.TemporaryDirectory(prefix="rayrlhf-") as folder:
        worker.save(Path(folder), {"step": steps_done})
        checkpoint = ray.train.Checkpoint.from_directory(folder) if ranks.rank == 0 else None
        ray.train.report(metrics, checkpoint=checkpoint)


def _innermost(error: BaseException) -> str:
    """The last line of the first worker's failure: the error message itself."""
    failures: Sequence[Any] = list(getattr(error, "worker_failures", {}).values()) or [error]
    lines = str(failures[0]).strip().splitlines()
    return lines[-1] if lines else repr(error)
