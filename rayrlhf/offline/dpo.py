"""Direct preference optimization (DPO) and other losses without a reward model, on Ray Train."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from rayrlhf.algorithms.preference import DPO, KTO, PreferenceLoss
from rayrlhf.data.tokens.prepare import Part
from rayrlhf.models import load_tokenizer
from rayrlhf.offline.config import OfflineConfig, PairData
from rayrlhf.offline.stage import Stage, run_offline
from rayrlhf.run_directory import RunDirectory, resolve
from rayrlhf.training.dpo import DPOWorker
from rayrlhf.training.kto import KTOWorker, LabeledSet
from rayrlhf.training.offline_worker import OfflineWorker
from rayrlhf.training.parallel import Ranks


class DPOConfig(OfflineConfig):
    """Configuration of `stage: dpo`."""

    stage: Literal["dpo"] = "dpo"
    data: PairData
    loss: PreferenceLoss = DPO()
    reference_model: str | None = None
    """Folder of the frozen reference; null means `model`, the policy before training. `orpo` and `simpo` have none."""

    @model_validator(mode="after")
    def _fits_the_loss(self) -> Self:
        if self.reference_model is not None and not self.loss.needs_reference:
            raise ValueError(
                f"reference_model is {self.reference_model!r}, but loss {self.loss.kind!r} has no reference: leave it "
                "out, or set loss to dpo, ipo or kto"
            )
        if self.data.augment is not None and self.loss.reads != "preferences":
            raise ValueError(
                f"data.augment makes pairs, but loss {self.loss.kind!r} learns from single answers: leave it out, or "
                "set loss to dpo, ipo, orpo or simpo"
            )
        return self

    @property
    def models(self) -> dict[str, str]:
        reference = {"reference": self.reference_model or self.model} if self.loss.needs_reference else {}
        return {"start": self.model} | reference

    def resolved(self) -> Self:
        reference = None if self.reference_model is None else resolve(self.reference_model)
        return super().resolved().model_copy(update={"reference_model": reference})


def run_dpo(config: DPOConfig) -> RunDirectory:
    """Train `config.model` on pairs or labeled answers; the result is in `model/` of the run directory."""
    return run_offline(STAGE, config)


def _build(config: DPOConfig, total_steps: int, training: Part, heldout: Part, ranks: Ranks) -> OfflineWorker:
    if isinstance(config.loss, KTO):
        return KTOWorker(
            config.model,
            config.models["reference"],
            load_tokenizer(config.model),
            config.training,
            config.loss,
            LabeledSet(training.tokens[0], training.values > 0),
            LabeledSet(heldout.tokens[0], heldout.values > 0),
            total_steps,
            ranks,
        )
    return DPOWorker(
        config.model,
        config.models.get("reference"),
        load_tokenizer(config.model),
        config.training,
        config.loss,
        (training.tokens[0], training.tokens[1]),
        (heldout.tokens[0], heldout.tokens[1]),
        total_steps,
        ranks,
    )


STAGE = Stage(
    title="dpo",
    shown=("dpo/loss", "dpo/accuracy", "dpo/margin_mean", "eval/loss", "eval/accuracy", "eval/margin_mean"),
    kind=lambda config: config.loss.reads,
    build=_build,
)
