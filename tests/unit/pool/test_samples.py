"""Which prompts a step samples, and how they are shared out."""

from collections import Counter

import pytest

from rayrlhf.pool.samples import PromptOrder
from rayrlhf.types import Prompt, sample_seed

PROMPTS = [Prompt(index, (index,)) for index in range(12)]


def order(batch_size: int, num_generations: int = 1, seed: int = 0, prompts=PROMPTS) -> PromptOrder:
    return PromptOrder(prompts, batch_size, num_generations, seed)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12])
@pytest.mark.parametrize("turns", [(1, 1, 1), (2, 1, 3)])
def test_every_prompt_is_sampled_once_in_each_pass_however_many_batches_steps_take(batch_size, turns):
    prompts = order(batch_size)
    drawn = [prompts.draw(step, turn) for step in range(30) for turn in range(turns[step % 3])]
    ids = [sample.prompt.id for samples in drawn for sample in samples]
    passes = [ids[start : start + 12] for start in range(0, len(ids) - 11, 12)]
    assert len(passes) >= 2
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert passes[0] != passes[1]


def test_the_order_is_the_runs_seeds():
    one, again, other = order(8, 2), order(8, 2), order(8, 2, seed=1)
    drawn = [[prompts.draw(step) for step in range(3)] for prompts in (one, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_several_responses_of_a_prompt_are_numbered_and_stand_together():
    samples = order(6, 3).draw(0)
    assert len({sample.prompt.id for sample in samples}) == 2
    assert [sample.sample_id for sample in samples] == [0, 1, 2, 0, 1, 2]


def test_a_prompt_met_twice_in_a_step_gets_further_sample_ids():
    samples = order(6, prompts=PROMPTS[:2]).draw(0)
    assert Counter((sample.prompt.id, sample.sample_id) for sample in samples) == {
        (prompt, sample): 1 for prompt in (0, 1) for sample in (0, 1, 2)
    }


def test_seeds_come_from_run_step_prompt_and_sample_alone():
    prompts = order(12, 2, seed=9)
    for step in (0, 3):
        for sample in prompts.draw(step):
            assert sample.seed == sample_seed(9, step, sample.prompt.id, sample.sample_id)


def test_several_turns_of_a_step_share_no_sample():
    prompts = order(6, 2, prompts=PROMPTS[:2])
    keys = [(sample.prompt.id, sample.sample_id) for turn in range(3) for sample in prompts.draw(0, turn)]
    assert len(set(keys)) == len(keys) == 18
