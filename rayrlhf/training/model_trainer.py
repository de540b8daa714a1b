"""`ModelTrainer`: the optimizer step that SFT, DPO, reward model, policy and critic share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rayrlhf.config import Config
from rayrlhf.models.lora import LoraConfig, add_adapters
from rayrlhf.training.batching import plan_microbatches
from rayrlhf.training.optimizers import AdamW, AnyOptimizer
from rayrlhf.training.parallel import (
    Precision,
    Ranks,
    Sharding,
    autocast,
    distribute,
    gradient_sync,
    unwrap,
    whole,
)
from rayrlhf.training.trained_weights import TrainedWeights


class TrainingConfig(Config):
    """How one module is trained, whatever its loss."""

    optimizer: AnyOptimizer = AdamW()
    max_tokens_per_microbatch: int = Field(default=8192, gt=0)
    """Padded tokens in one forward pass. Bounds memory; never changes the result."""
    sharding: Sharding = "ddp"
    """`ddp` replicates the module on every rank; `fsdp` (FSDP2) shards parameters, gradients and optimizer state."""
    precision: Precision = "auto"
    """Compute dtype of forward passes. `auto`: bfloat16 for bfloat16 parameters and on GPUs that support it, else
    float32."""
    parameters: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the module's weights. With `bfloat16` the optimizer keeps float32 masters of the trained ones, so it
    saves memory where most weights are frozen (`lora`); forward passes then compute in bfloat16 too."""
    lora: LoraConfig | None = None
    """Train low-rank adapters, and a scalar model's head, instead of all weights; null trains all weights."""
    activation_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations: less memory, the same result."""

    @model_validator(mode="after")
    def _precision_fits_parameters(self) -> TrainingConfig:
        if self.parameters == "bfloat16" and self.precision == "float32":
            raise ValueError(
                "precision 'float32' contradicts parameters 'bfloat16': the weights have only bfloat16's digits; set "
                "parameters to float32, or precision to auto"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_fits_sharding(self) -> TrainingConfig:
        if self.sharding == "fsdp" and not self.optimizer.shards:
            raise ValueError(
                f"sharding 'fsdp' cannot shard the state of optimizer {self.optimizer.kind!r}: set sharding to ddp, or "
                "optimizer.kind to adamw"
            )
        return self

    @model_validator(mode="after")
    def _4_bits_fit(self) -> TrainingConfig:
        if not self.load_in_4bit:
            return self
        if self.sharding == "fsdp":
            raise ValueError(
                "sharding 'fsdp' cannot shard the 4-bit weights of lora.load_in_4bit=true: set sharding to ddp, or "
                "lora.load_in_4bit to false"
            )
        if self.precision == "float32":
            raise ValueError(
                "precision 'float32' contradicts lora.load_in_4bit=true, whose layers compute in bfloat16: set "
                "precision to auto, or lora.load_in_4bit to false"
            )
        return self

    @property
    def load_in_4bit(self) -> bool:
        """Whether the frozen weights are kept in 4 bits."""
        return self.lora is not None and self.lora.load_in_4bit

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to load the module in."""
        return torch.bfloat16 if self.parameters == "bfloat16" else torch.float32

    @property
    def compute_precision(self) -> Precision:
        """`precision`, which bfloat16 parameters override."""
        return "bfloat16" if self.parameters == "bfloat16" else self.precision


class SupervisedTraining(TrainingConfig):
    """How a module is trained that is not compared with itself, so that it may drop units."""

    dropout: bool = False
    """Drop units at the rates in the model's configuration (GPT-2's are 0.1)."""


@dataclass
class StepReport:
    """Metrics of one optimizer step on one rank."""

    partial: dict[str, float] = field(default_factory=dict)
    """This rank's shares of global means; they add up over micro-batches and ranks."""
    shared: dict[str, float] = field(default_factory=dict)
    """The same on every rank."""

    @staticmethod
    def merge(reports: Sequence[StepReport]) -> dict[str, float]:
        """One step's reports from all ranks as one set of metrics."""
        total: dict[str, float] = dict(reports[0].shared)
        for report in reports:
            for name, value in report.partial.items():
                total[name] = total.get(name, 0.0) + value
        return total


MicroLoss = Callable[[list[int]], tuple[Tensor, dict[str, Tensor]]]
"""rows → (loss, metrics), both already divided by the denominators of the whole optimizer step."""


class ModelTrainer:
    """A distributed module with its optimizer and schedule.

    `module` is given in the configuration's `dtype`. Adapters and activation checkpointing need its `model`, a Hugging
    Face model.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig, total_steps: int, ranks: Ranks) -> None:
        self.config = config
        self.ranks = ranks
        if config.lora is not None:
            add_adapters(module.model, config.lora)
        if config.activation_checkpointing:
            module.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.module = distribute(module, config.sharding, ranks)
        self.trained = TrainedWeights(self.module, masters=config.parameters == "bfloat16")
        self.optimizer = config.optimizer.build(self.trained.parameters())
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: config.optimizer.rate_factor(step, total_steps)
        )

    @property
    def inner(self) -> Any:
        """The module itself, without its DDP wrapper."""
        return unwrap(self.module)

    def autocast(self) -> Any:
        """The precision that forward passes run in."""
        return autocast(self.ranks.device, self.config.compute_precision)

    def plan(self, lengths: np.ndarray) -> list[list[int]]:
        """This rank's micro-batches for rows of these lengths ([B] tokens)."""
        return plan_microbatches(lengths, self.config.max_tokens_per_microbatch, self.ranks.world_size)[self.ranks.rank]

    def step(self, microbatches: Sequence[list[int]], loss_of: MicroLoss) -> StepReport:
        """One optimizer step over this rank's micro-batches.

        Losses add up over micro-batches and ranks. An empty micro-batch runs row 0 with weight 0, so that all ranks
        enter the same number of collectives. If the gradient is not finite, the step is skipped and reported.
        """
        self.module.train()
        report = StepReport()
        for index, rows in enumerate(microbatches):
            # Masters accumulate micro-batches in float32, so each one's gradients are exchanged separately.
            exchange = self.trained.masters or index == len(microbatches) - 1
            with gradient_sync(self.module, enabled=exchange), self.autocast():
                loss, metrics = loss_of(rows or [0])
                weight = self.ranks.world_size if rows else 0  # DDP and FSDP average over ranks; we want the sum
                (loss * weight).backward()
            self.trained.take_gradients()
            if rows:
                for name, value in metrics.items():
                    report.partial[name] = report.partial.get(name, 0.0) + float(value.detach())
        max_norm = self.config.optimizer.max_grad_norm
        limit = math.inf if max_norm is None else max_norm
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.trained.parameters(), limit)))
        learning_rate = self.optimizer.param_groups[0]["lr"]
        if math.isfinite(norm):
            self.optimizer.step()
            self.trained.write_back()
            self.schedule.step()
        report.shared = {
            "grad_norm": norm,
            "learning_rate": learning_rate,
            "skipped_steps": 0.0 if math.isfinite(norm) else 1.0,
        }
        self.optimizer.zero_grad(set_to_none=True)
        return report

    def reshard(self) -> None:
        """Call after forward passes without a backward: FSDP2 leaves the root's parameters gathered."""
        if hasattr(self.module, "reshard"):
            self.module.reshard()

    def state_dict(self) -> dict[str, Tensor]:
        """Full tensors on the CPU under the inner model's names, adapters not merged. A collective when sharded."""
        return {name: whole(value).cpu() for name, value in self.inner.model.state_dict().items()}

    def training_state(self) -> dict[str, Any]:
        """Trained weights (the masters, if there are any), optimizer and schedule, as full tensors on the CPU.

        A collective. Frozen weights are left out: they are those of the folder that training started from.
        """
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        trained, optimizer = get_state_dict(self.trained, self.optimizer, options=options)
        return {"trained": trained, "optimizer": optimizer, "schedule": self.schedule.state_dict()}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Load what `training_state` returned, on any number of ranks."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        self.reshard()  # drop gathered copies of the old values
        set_state_dict(
            self.trained,
            self.optimizer,
            model_state_dict=state["trained"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
        self.trained.write_back()
        self.schedule.load_state_dict(state["schedule"])
