"""Three ranks and one give the same losses and gradients, where rows do not come out even and ranks go without.

Run as a script this file is one of the ranks: see `launch`.
"""

import pickle
import sys
from typing import Any, get_args

import pytest
import torch
from launch import join, launch
from steps import Inputs, Step, make_inputs, run_steps

from rayrlhf.models import ScalarModel
from rayrlhf.training.parallel import Ranks, Sharding

LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 3), (4, 4), (2, 2), (1, 6)]
ROWS: dict[str, list[int]] = {
    "seven rows": [0, 4, 2, 6, 1, 5, 3],
    "a rank without a row": [4, 1],
    "one rank alone with a row": [3],
}
ROLES = ("policy", "critic", "sft", "kto")
NUM_RANKS = 3


def all_steps(inputs: Inputs, ranks: Ranks, sharding: Sharding) -> dict[tuple[str, str], Step]:
    found: dict[tuple[str, str], Step] = {}
    for role in ROLES:
        steps = run_steps(role, inputs, ROWS.values(), ranks, sharding=sharding, max_tokens_per_microbatch=24)
        found |= {(role, name): step for name, step in zip(ROWS, steps, strict=True)}
    return found


def main(*arguments: str) -> None:
    ranks, folder = join(*arguments)
    inputs = pickle.loads((folder / "inputs.pickle").read_bytes())
    found = {sharding: all_steps(inputs, ranks, sharding) for sharding in get_args(Sharding)}
    (folder / f"{ranks.rank}.pickle").write_bytes(pickle.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tiny_qwen2, tokenizer, make_rollouts, tmp_path_factory) -> dict[str, Any]:
    """`one`: the steps of one rank; `three`: those of each of three, by sharding."""
    folder = tmp_path_factory.mktemp("uneven_ranks")
    scalar = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(scalar.model.score.weight, generator=torch.Generator().manual_seed(0))
    scalar.save(folder / "reward_model", tokenizer)
    inputs = make_inputs(tiny_qwen2, str(folder / "reward_model"), make_rollouts(LENGTHS))
    (folder / "inputs.pickle").write_bytes(pickle.dumps(inputs))
    one = launch(__file__, NUM_RANKS, folder, lambda: all_steps(inputs, Ranks(), "ddp"))
    three = [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(NUM_RANKS)]
    return {"one": one, "three": three}


@pytest.mark.parametrize("rows", list(ROWS))
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("sharding", get_args(Sharding))
def test_three_learners_have_the_loss_and_gradient_of_one(results, sharding, role, rows):
    for rank in results["three"]:
        rank[sharding][role, rows].assert_equals(results["one"][role, rows])


if __name__ == "__main__":
    main(*sys.argv[1:])
