"""What a step trains on: one draw, or several until enough groups of responses differ in their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rayrlhf.actors.ppo_config import PPOConfig
from rayrlhf.actors.roles import Collected, Roles
from rayrlhf.algorithms.grpo import DynamicSampling, GroupAlgorithm
from rayrlhf.rollout.requests import step_requests
from rayrlhf.types import Prompt, SampleRequest


def draw(config: PPOConfig, roles: Roles, prompts: Sequence[Prompt], step: int) -> Collected:
    """y ~ π_step(·|x) for the step's prompts; references and reports only."""
    algorithm = config.algorithm
    if isinstance(algorithm, GroupAlgorithm) and algorithm.dynamic_sampling is not None:
        return _draw_until_enough(config, roles, prompts, step, algorithm.dynamic_sampling)
    requests = _requests(config, prompts, step)
    rollouts = roles.collect(requests, version=step)
    if not algorithm.needs_greedy:
        return rollouts
    one_each = {request.prompt.id: replace(request, sample_id=0) for request in requests}
    greedy = config.sampling.model_copy(update={"temperature": 0.0})
    return replace(rollouts, greedy=roles.collect(list(one_each.values()), step, greedy))


def _draw_until_enough(
    config: PPOConfig, roles: Roles, prompts: Sequence[Prompt], step: int, rule: DynamicSampling
) -> Collected:
    """Groups whose scores are all the same are left out and others drawn, as often as the rule allows.

    A step that finds no group at all trains on its last draw, which then moves nothing but the KL penalty.
    """
    wanted = config.batch_size // config.num_generations
    kept = Collected([], [], 0)
    num_groups, num_drawn = 0, 0
    for turn in range(rule.max_rounds):
        drawn = roles.collect(_requests(config, prompts, step * rule.max_rounds + turn), version=step)
        drawn = replace(drawn, scores=roles.scores(drawn), reports=[*kept.reports, *drawn.reports])
        num_drawn += drawn.num_rows
        found, rollouts, scores = roles.select(rule.tolerance, wanted - num_groups, kept, drawn)
        num_groups += found
        kept = Collected([rollouts], drawn.reports, num_groups * config.num_generations, [scores])
        if num_groups == wanted:
            break
    chosen = kept if num_groups else drawn
    return replace(chosen, num_left_out=num_drawn - chosen.num_rows)


def _requests(config: PPOConfig, prompts: Sequence[Prompt], draw: int) -> list[SampleRequest]:
    return step_requests(prompts, draw, config.batch_size, config.num_generations, config.run.seed)
