"""What must not change a step: which rows share a micro-batch, their order, padding, recomputed activations."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from steps import LOSSES, Inputs, make_inputs, run_steps

from rayrlhf.models import ScalarModel
from rayrlhf.types import Rollouts

RNG = np.random.default_rng(0)
LENGTHS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), min_size=2, max_size=6)


@pytest.fixture(scope="module")
def reward_model(tiny_qwen2, tokenizer, tmp_path_factory) -> str:
    """A folder with a random head."""
    folder = tmp_path_factory.mktemp("invariance")
    scalar = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(scalar.model.score.weight, generator=torch.Generator().manual_seed(0))
    scalar.save(folder, tokenizer)
    return str(folder)


class WiderRollouts(Rollouts):
    """Rollouts whose micro-batches get more columns than they need, with something in every entry of padding."""

    NUM_COLUMNS: ClassVar = 0

    def padded(self, flat: np.ndarray, rows: Any = None, width: int | None = None) -> np.ndarray:
        array = super().padded(flat, rows, width)
        wider = np.pad(array, ((0, 0), (0, self.NUM_COLUMNS)))
        extra = 0 if len(flat) == len(self.tokens) else 1
        outside = np.arange(wider.shape[1]) >= self.lengths[rows][:, None] + extra
        if wider.dtype != bool:  # masks say what is padding
            wider[outside] = 0.3 if wider.dtype.kind == "f" else RNG.integers(4, 200, outside.sum())
        return wider


def padded(inputs: Inputs, amount: int) -> Inputs:
    """The same rollouts with `amount` more columns, and something in every column that is padding."""
    kind = type("Wider", (WiderRollouts,), {"NUM_COLUMNS": amount})
    return replace(inputs, batch=replace(inputs.batch, rollouts=kind(**vars(inputs.batch.rollouts))))


@pytest.mark.parametrize("role", list(LOSSES))
@given(
    lengths=LENGTHS,
    max_tokens=st.integers(1, 60),
    order=st.randoms(use_true_random=False),
    padding=st.integers(0, 6),
    recompute=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=12, phases=[Phase.generate])  # looking for a smaller failure would take minutes
def test_nothing_but_the_rows_decides_a_steps_loss_and_gradient(
    role, tiny_qwen2, reward_model, make_rollouts, lengths, max_tokens, order, padding, recompute, seed
):
    inputs = make_inputs(tiny_qwen2, reward_model, make_rollouts(lengths, seed=seed), seed)
    rows = list(range(len(lengths)))
    (wanted,) = run_steps(role, inputs, [rows])
    order.shuffle(rows)
    (found,) = run_steps(
        role,
        padded(inputs, padding),
        [rows],
        max_tokens_per_microbatch=max_tokens,
        activation_checkpointing=recompute,
    )
    found.assert_equals(wanted)
