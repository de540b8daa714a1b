"""The preset `trl` against TRL's own trainer, run here."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayrlhf.algorithms import PPO, ScoredRollouts
from rayrlhf.algorithms.policy_loss import TokenTensors
from rayrlhf.algorithms.presets import PRESETS
from rayrlhf.functional import TokenLogprobs
from rayrlhf.types import Rollouts, TrainBatch, offsets_of

pytestmark = pytest.mark.peer
ALGORITHM = PPO(**PRESETS["trl"]["algorithm"])


@pytest.fixture(scope="module")
def updates(tmp_path_factory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("trl") / "updates.pt"
    subprocess.run([sys.executable, str(Path(__file__).with_name("trl_run.py")), str(out)], check=True)
    return list(torch.load(out, weights_only=False))


def credit(update: dict[str, Any]) -> tuple[TrainBatch, TrainBatch]:
    """Our credit for TRL's rollouts, padded and ragged. Columns are the response's; a prompt token comes first."""
    lengths = (~update["padding_mask"]).sum(1).numpy()
    assert lengths.min() > 0 and len(set(lengths.tolist())) > 2
    count, width = update["padding_mask"].shape
    total = int((lengths + 1).sum())
    rollouts = Rollouts(
        offsets=offsets_of(lengths + 1),
        tokens=np.ones(total, dtype=np.int32),
        loss_mask=np.concatenate([np.arange(length + 1) >= 1 for length in lengths]),
        engine_logprobs=np.zeros(total),
        versions=np.zeros(total, dtype=np.int32),
        prompt_lengths=np.ones(count, dtype=np.int32),
        finished=np.ones(count, dtype=bool),
        prompt_ids=np.arange(count),
        sample_ids=np.zeros(count, dtype=np.int32),
    )
    old, reference = (shifted(update[name]).numpy() for name in ("logprobs", "ref_logprobs"))
    values = shifted(update["values"], after=1).numpy()
    judged = ScoredRollouts(rollouts, update["scores"].numpy(), old, width, reference, values)
    batch = ALGORITHM.assign_credit(judged, ALGORITHM.kl_coef)[0]
    names = {"advantages": 1, "old_logprobs": 1, "values": 2, "returns": 2, "value_mask": 2}
    arrays = {name: rollouts.padded(getattr(batch, name), width=width + extra) for name, extra in names.items()}
    return replace(batch, **arrays), batch


def shifted(columns: torch.Tensor, after: int = 0) -> torch.Tensor:
    return torch.nn.functional.pad(columns, (1, after))


def test_advantages_and_returns_are_those_of_the_trainer(updates):
    for update in updates:
        batch, _ = credit(update)
        np.testing.assert_allclose(batch.advantages[:, 1:], update["advantages"].numpy(), rtol=1e-6, atol=1e-9)
        learned = batch.value_mask[:, 1:-1]
        np.testing.assert_allclose(
            batch.returns[:, 1:-1][learned], update["returns"].numpy()[learned], rtol=1e-6, atol=1e-9
        )


def test_losses_of_every_micro_batch_are_those_of_the_trainer(updates):
    for update in updates:
        batch, ragged = credit(update)
        assert len(update["micro_batches"]) >= 4
        for micro in update["micro_batches"]:
            rows = np.asarray(micro["micro_batch_inds"])
            data = TokenTensors(
                torch.from_numpy(batch.rollouts.padded(batch.rollouts.loss_mask, rows, batch.advantages.shape[1])),
                *(torch.from_numpy(array[rows]) for array in (batch.old_logprobs, batch.old_logprobs)),
                torch.from_numpy(batch.advantages[rows]),
                None,
                *(torch.from_numpy(array[rows]) for array in (batch.values, batch.returns, batch.value_mask)),
            )
            size = ragged.size_of(rows)
            new = TokenLogprobs(shifted(micro["new_logprobs"]), torch.zeros_like(data.old_logprobs))
            policy, _ = ALGORITHM.policy_loss(new, data, size, ALGORITHM.kl_coef)
            value, _ = ALGORITHM.value_loss(shifted(micro["vpred"], after=1), data, size)
            assert policy.item() == pytest.approx(micro["pg_loss"].item(), rel=1e-6, abs=1e-9)
            assert value.item() == pytest.approx(ALGORITHM.vf_coef * micro["vf_loss"].item(), rel=1e-6, abs=1e-9)
