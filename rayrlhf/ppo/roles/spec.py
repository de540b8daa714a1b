"""What a role is: the one value that configuration, input checks, placement, start-up and the loop read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from rayrlhf.cluster.placement import Resources
from rayrlhf.run_directory import resolve
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.parallel import Ranks

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig


class RoleSettings(Resources):
    """Base of a role's section in `PPOConfig`."""

    def resolved(self) -> Self:
        """With absolute paths, as actors in other working directories need them."""
        model: str | None = getattr(self, "model", None)
        return self if model is None else self.model_copy(update={"model": resolve(model)})


@dataclass(frozen=True)
class RoleInputs:
    """What workers are built from besides the configuration. Large values are object references, so that a worker that
    Ray starts again reads them once more."""

    eos_token_id: int
    max_model_len: int
    known: Any
    """Reference to (gold answers, columns), what the data know of each prompt by its id; None if nothing."""
    ptx: Any
    """Reference to the rows of `ptx`, or None."""


@dataclass(frozen=True)
class Output:
    """What a role computes for each step's rollouts."""

    name: str
    """`scores`, `old_logprobs`, `ref_logprobs`, `values`; another name reaches `ScoredRollouts.extras`."""
    method: str
    """Of the worker, called with `rollouts` and `arguments`; it returns its rank's `RowShare` (or `ScoreShare`)."""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RoleSpec:
    """One role of a run."""

    name: str
    """Of the role, and of its section in `PPOConfig`."""
    build: Callable[[PPOConfig, RoleInputs, Ranks], Any] | None
    """Builds one rank's worker inside its actor; None for samplers, whose processes the rollout pool starts."""
    needed: Callable[[PPOConfig], bool] = lambda config: True
    models: Callable[[PPOConfig], Mapping[str, str]] = lambda config: {}
    """Folder (or hub name) by label: what is looked at before anything starts, and counted in memory estimates."""
    check: Callable[[PPOConfig], None] = lambda config: None
    """Raises UserError for settings or models that cannot work. Paths are resolved, and the models are there."""
    training: Callable[[PPOConfig], TrainingConfig | None] = lambda config: None
    """How it is trained; None is a frozen role."""
    output: Callable[[PPOConfig], Output | None] = lambda config: None
    """What it computes for each step's rollouts, if the algorithm needs it."""
    together: bool = False
    """Whether its ranks share a process group."""
    restartable: bool = False
    """Whether a worker that died can be made again from nothing but this."""
    reserves: bool = True
    """False for a role without a section of its own that works while the others wait."""

    def resources(self, config: PPOConfig) -> Resources:
        """How many actors it has, and what each reserves."""
        if not self.reserves:
            return Resources(num_workers=1, num_cpus=0, num_threads=1)
        resources: Resources = getattr(config, self.name)
        return resources
