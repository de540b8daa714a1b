"""Direct preference optimization (DPO) on Ray Train."""

from __future__ import annotations

from typing import Literal, Self

from rayrlhf.algorithms.preference import DPO, PreferenceLoss
from rayrlhf.data.tokens.prepare import TokenSet
from rayrlhf.models import load_tokenizer
from rayrlhf.offline.config import OfflineConfig, PairData
from rayrlhf.offline.stage import Stage, run_offline
from rayrlhf.run_directory import RunDirectory, resolve
from rayrlhf.training.dpo import DPOWorker
from rayrlhf.training.parallel import Ranks


class DPOConfig(OfflineConfig):
    """Configuration of `stage: dpo`."""

    stage: Literal["dpo"] = "dpo"
    data: PairData
    loss: PreferenceLoss = DPO()
    reference_model: str | None = None
    """Folder of the frozen reference; null means `model`, the policy before training."""

    @property
    def models(self) -> dict[str, str]:
        return {"start": self.model, "reference": self.reference_model or self.model}

    def resolved(self) -> Self:
        reference = None if self.reference_model is None else resolve(self.reference_model)
        return super().resolved().model_copy(update={"reference_model": reference})


def run_dpo(config: DPOConfig) -> RunDirectory:
    """Train `config.model` on pairs against its reference; the result is in `model/` of the run directory."""
    return run_offline(STAGE, config)


def _build(config: DPOConfig, total_steps: int, training: TokenSet, heldout: TokenSet, ranks: Ranks) -> DPOWorker:
    return DPOWorker(
        config.model,
        config.models["reference"],
        load_tokenizer(config.model),
        config.training,
        config.loss,
        (training[0], training[1]),
        (heldout[0], heldout[1]),
        total_steps,
        ranks,
    )


STAGE = Stage(
    title="dpo",
    shown=("dpo/loss", "dpo/accuracy", "dpo/margin_mean", "eval/loss", "eval/accuracy", "eval/margin_mean"),
    kind="preferences",
    build=_build,
)
