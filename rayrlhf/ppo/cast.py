"""A handle for each role of a run: what the loop talks to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rayrlhf.ppo.actors import RunActors
from rayrlhf.ppo.handles import Credit, Critic, Handle, Learners, Others, Policy, Reference, Reward, Weights
from rayrlhf.ppo.roles import roles_of
from rayrlhf.ppo.sampling import Samplers
from rayrlhf.types import Prompt

HandleT = TypeVar("HandleT", bound=Handle)


class Cast:
    """The roles of a run, by name."""

    def __init__(self, actors: RunActors, prompts: Sequence[Prompt], say: Callable[[str], None]) -> None:
        config, groups = actors.config, actors.groups
        outputs = {role.name: role.output(config) for role in roles_of(config)}

        def handle(kind: type[HandleT], name: str) -> HandleT:
            return kind(groups.get(name), outputs.pop(name, None))

        self.reward = handle(Reward, "reward")
        self.policy = handle(Policy, "policy")
        self.reference = handle(Reference, "reference")
        self.critic = handle(Critic, "critic")
        self.others = Others({output.name: Handle(groups[name], output) for name, output in outputs.items() if output})
        self.credit = Credit(groups["credit"], config)
        self.learners = Learners(groups, config)
        self.weights = Weights(actors)
        self.samplers = Samplers(config, actors.pool, self.weights, self.reward, self.credit, prompts, say)
