"""What must not change a step: which rows share a micro-batch, their order, padding, recomputed activations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from steps import LOSSES, Inputs, make_inputs, run_steps

from rayrlhf.models import ScalarModel
from rayrlhf.types import Rollouts

LENGTHS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), min_size=2, max_size=6)


@pytest.fixture(scope="module")
def reward_model(tiny_qwen2, tokenizer, tmp_path_factory) -> str:
    """A folder with a random head."""
    folder = tmp_path_factory.mktemp("invariance")
    scalar = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(scalar.model.score.weight, generator=torch.Generator().manual_seed(0))
    scalar.save(folder, tokenizer)
    return str(folder)


def padded(inputs: Inputs, amount: int, seed: int) -> Inputs:
    """The same rollouts with `amount` more columns, and something in every column that is padding."""
    rng, batch = np.random.default_rng(seed), inputs.batch
    rollouts: Rollouts = batch.rollouts

    def wider(array: np.ndarray | None, fill: float) -> np.ndarray | None:
        return None if array is None else np.pad(array, ((0, 0), (0, amount)), constant_values=fill)

    tokens = np.pad(rollouts.tokens, ((0, 0), (0, amount)))
    outside = np.arange(tokens.shape[1]) >= rollouts.lengths[:, None]
    tokens[outside] = rng.integers(4, 200, int(outside.sum()))
    arrays = {name: wider(getattr(batch, name), 0.3) for name in ("old_logprobs", "ref_logprobs", "values", "returns")}
    arrays |= {name: wider(getattr(batch, name), 0) for name in ("advantages", "value_mask")}
    engine = wider(rollouts.engine_logprobs, 0.0)
    return replace(
        inputs, batch=replace(batch, rollouts=replace(rollouts, tokens=tokens, engine_logprobs=engine), **arrays)
    )


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
        padded(inputs, padding, seed),
        [rows],
        max_tokens_per_microbatch=max_tokens,
        activation_checkpointing=recompute,
    )
    found.assert_equals(wanted)
