"""What a step trains on, ordered as many steps ahead as rollouts may be stale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rayrlhf.algorithms.grpo import DynamicSampling, GroupAlgorithm
from rayrlhf.pool.leases import SampleBatch
from rayrlhf.pool.samples import step_samples
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles import Collected, Roles
from rayrlhf.types import Prompt


class Draws:
    """The run's draws: a step has one, or several until enough groups of responses differ in their scores."""

    def __init__(self, config: PPOConfig, roles: Roles, prompts: Sequence[Prompt]) -> None:
        self._config, self._roles, self._prompts = config, roles, prompts
        self._ordered: dict[int, tuple[SampleBatch, SampleBatch | None]] = {}  # by step, not yet taken
        self._next_step = 0

    def take(self, step: int) -> Collected:
        """The step's rollouts, references only; with staleness, what follows is drawn while the learners train."""
        config, algorithm = self._config, self._config.algorithm
        while self._next_step <= min(step + config.rollouts.max_staleness, config.num_steps - 1):
            self._ordered[self._next_step] = self._order(self._next_step)
            self._next_step += 1
        order, greedy = self._ordered.pop(step)
        rollouts = self._roles.take(order)
        if isinstance(algorithm, GroupAlgorithm) and algorithm.dynamic_sampling is not None:
            return self._until_enough(rollouts, step, algorithm.dynamic_sampling)
        return rollouts if greedy is None else replace(rollouts, greedy=self._roles.take(greedy))

    def _order(self, step: int, turn: int = 0) -> tuple[SampleBatch, SampleBatch | None]:
        """y ~ π(·|x) for the prompts of the step's draw `turn`, and with greedy ones for each prompt if needed."""
        config, roles = self._config, self._roles
        samples = step_samples(
            self._prompts,
            step * config.algorithm.draws_per_step + turn,
            config.batch_size,
            config.num_generations,
            config.run.seed,
            first_sample=turn * config.batch_size,
        )
        min_version = step - config.rollouts.max_staleness
        order = roles.order(samples, step, min_version)
        if not config.algorithm.needs_greedy:
            return order, None
        one_each = {sample.prompt.id: replace(sample, sample_id=0) for sample in samples}
        greedy = config.sampling.model_copy(update={"temperature": 0.0})
        return order, roles.order(list(one_each.values()), step, min_version, greedy, "baseline")

    def _until_enough(self, drawn: Collected, step: int, rule: DynamicSampling) -> Collected:
        """Groups whose scores are all the same are left out and others drawn, as often as the rule allows.

        A step that finds no group at all trains on its last draw, which then moves nothing but the KL penalty.
        """
        config, roles = self._config, self._roles
        wanted = config.batch_size // config.num_generations
        kept = Collected([], 0)
        num_groups, num_drawn = 0, 0
        for turn in range(rule.max_rounds):
            if turn:
                drawn = roles.take(self._order(step, turn)[0])
            drawn = replace(drawn, scores=roles.scores(drawn), orders=(*kept.orders, *drawn.orders))
            num_drawn += drawn.num_rows
            found, rollouts, scores = roles.select(rule.tolerance, wanted - num_groups, kept, drawn)
            num_groups += found
            rows = num_groups * config.num_generations
            kept = Collected([rollouts], rows, drawn.status, drawn.orders, [scores])
            if num_groups == wanted:
                break
        chosen = kept if num_groups else drawn
        return replace(chosen, num_left_out=num_drawn - chosen.num_rows)
