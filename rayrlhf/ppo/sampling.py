"""The samplers as the loop sees them: a step's samples, requested as many steps ahead as rollouts may be stale."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from rayrlhf.algorithms.base import DynamicSampling
from rayrlhf.cluster.actor_group import WorkerError
from rayrlhf.engines import Sampling
from rayrlhf.pool.leases import Purpose, SampleBatch
from rayrlhf.pool.samples import PromptOrder
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.handles import Collected, Credit, Reward, Waiting, Weights
from rayrlhf.types import Prompt, Sample
from rayrlhf.workers.credit import Key

LOOK_AFTER_S = 2.0
"""How often the loop looks after pool and store while it waits."""


class Samplers(Waiting):
    """The rollout pool. A step has one batch of samples, or several until enough groups differ in their scores."""

    def __init__(
        self,
        config: PPOConfig,
        pool: Any,
        weights: Weights,
        reward: Reward,
        credit: Credit,
        prompts: Sequence[Prompt],
        say: Callable[[str], None],
    ) -> None:
        self._config, self._pool, self._say = config, pool, say
        self._prompt_order = PromptOrder(prompts, config.batch_size, config.num_generations, config.run.seed)
        self._weights, self._reward, self._credit = weights, reward, credit
        self._ahead: dict[int, tuple[SampleBatch, SampleBatch | None]] = {}  # by step, requested and not yet taken
        self._next_step = self._next_batch = 0
        self._told: list[Any] = []  # references to what the pool answers to what the loop told it

    def collect(self, step: int) -> Collected:
        """y ~ π_old(·|x) for the step's prompts; with staleness, what follows is sampled while the learners train."""
        config, algorithm = self._config, self._config.algorithm
        while self._next_step <= min(step + config.rollouts.max_staleness, config.num_steps - 1):
            self._ahead[self._next_step] = self._request_step(self._next_step)
            self._next_step += 1
        batch, greedy = self._ahead.pop(step)
        collected = self._take(batch)
        if algorithm.resampling is not None:
            return self._until_enough(collected, step, algorithm.resampling)
        return collected if greedy is None else replace(collected, greedy=self._take(greedy))

    def generate(self, samples: Sequence[Sample], version: int) -> Collected:
        """Responses to held-out prompts by weights `version`."""
        return self._take(self._request(samples, version, version, purpose="evaluate"))

    def settle(self, collected: Collected, ends: Mapping[Key, str | None] | None = None) -> None:
        """Tell the ledger what became of the samples: those that `ends` does not name were left out. None: all served
        their purpose."""
        for batch in collected.batches:
            rejected: dict[Key, str] = {}
            if ends is not None:
                keys = [(sample.prompt.id, sample.sample_id) for sample in batch.samples]
                rejected = {key: why for key in keys if (why := ends.get(key, "its group's scores do not differ"))}
            self._told.append(self._pool.settle.remote(batch.id, rejected))
        if collected.greedy is not None:
            self.settle(collected.greedy)

    def tell(self, step: int, seconds: Mapping[str, float]) -> None:
        """Let `rayrlhf status` know where the loop is. seconds: of the learners, by activity."""
        self._wait_all(self._told, "the rollout pool")  # what it was told before: an error there ends the run
        self._told = [self._pool.at.remote(step, self._config.num_steps, dict(seconds))]
        self._pass_on()

    def _request(
        self,
        samples: Sequence[Sample],
        step: int,
        min_version: int,
        sampling: Sampling | None = None,
        purpose: Purpose = "train",
    ) -> SampleBatch:
        """Have the samplers generate a response for every sample, with weights of at least `min_version`."""
        sampling = sampling or self._config.sampling
        batch = SampleBatch(self._next_batch, step, tuple(samples), sampling, max(0, min_version), purpose)
        self._next_batch += 1
        self._wait(self._pool.submit.remote(batch), "the rollout pool")
        return batch

    def _take(self, batch: SampleBatch) -> Collected:
        """A batch's rollouts, once all are there."""
        status, rollouts = self._pool.take.options(num_returns=2).remote(batch.id)
        began, limit = time.monotonic(), self._config.timeouts.step_s
        while not ray.wait([status], timeout=LOOK_AFTER_S)[0]:
            self._pass_on()
            if line := self._weights.heal():
                self._say(line)
            if time.monotonic() - began > limit:
                raise WorkerError(
                    f"waited {limit:g} s for rollouts: raise timeouts.step_s, or look at `rayrlhf status`"
                )
        return Collected(rollouts, len(batch.samples), self._wait(status, "rollouts"), (batch,))

    def _request_step(self, step: int, turn: int = 0) -> tuple[SampleBatch, SampleBatch | None]:
        """The samples of a step's batch `turn`, and if the algorithm needs them a greedy one for each prompt."""
        config = self._config
        samples = self._prompt_order.draw(step, turn)
        min_version = step - config.rollouts.max_staleness
        batch = self._request(samples, step, min_version)
        if not config.algorithm.needs_greedy:
            return batch, None
        one_each = {sample.prompt.id: replace(sample, sample_id=0) for sample in samples}
        greedy = config.sampling.model_copy(update={"temperature": 0.0})
        return batch, self._request(list(one_each.values()), step, min_version, greedy, "baseline")

    def _until_enough(self, collected: Collected, step: int, rule: DynamicSampling) -> Collected:
        """Leave out groups whose scores are all the same and sample others, as often as the rule allows.

        A step that finds no group at all trains on its last batch, which then moves nothing but the KL penalty.
        """
        config = self._config
        wanted = config.batch_size // config.num_generations
        kept: Collected | None = None
        num_groups = num_sampled = 0
        batches: tuple[SampleBatch, ...] = ()
        for turn in range(rule.max_rounds):
            if turn:
                collected = self._take(self._request_step(step, turn)[0])
            batches = (*batches, *collected.batches)
            collected = replace(collected, scores=self._reward.score(collected), batches=batches)
            num_sampled += collected.num_rows
            assert collected.scores is not None
            found, rollouts, scores = self._credit.select(
                collected, collected.scores, kept, rule.tolerance, wanted - num_groups
            )
            num_groups += found
            rows = num_groups * config.num_generations
            kept = Collected(rollouts, rows, collected.status, batches, [scores])
            if num_groups == wanted:
                break
        chosen = kept if kept is not None and num_groups else collected
        return replace(chosen, num_left_out=num_sampled - chosen.num_rows)

    def _pass_on(self) -> None:
        """Show the pool's log lines."""
        for line in self._wait(self._pool.lines.remote(), "the rollout pool"):
            self._say(line)
