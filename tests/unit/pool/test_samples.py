"""Which prompts a step samples, and how they are shared out."""

from collections import Counter

import pytest

from rayrlhf.pool.samples import step_samples
from rayrlhf.types import Prompt, sample_seed

PROMPTS = [Prompt(index, (index,)) for index in range(12)]


def sampled(num_steps: int, batch_size: int, num_generations: int = 1, seed: int = 0, prompts=PROMPTS) -> list:
    return [
        sample for step in range(num_steps) for sample in step_samples(prompts, step, batch_size, num_generations, seed)
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12])
def test_every_prompt_is_sampled_once_in_each_pass(batch_size):
    ids = [sample.prompt.id for sample in sampled(30, batch_size)]
    passes = [ids[start : start + 12] for start in range(0, len(ids) - 11, 12)]
    assert len(passes) >= 2
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert passes[0] != passes[1]


def test_a_step_is_the_same_whenever_it_is_asked_for():
    assert step_samples(PROMPTS, 5, 8, 2, 0) == step_samples(PROMPTS, 5, 8, 2, 0)
    assert step_samples(PROMPTS, 5, 8, 2, 0) != step_samples(PROMPTS, 5, 8, 2, 1)


def test_several_responses_of_a_prompt_are_numbered_and_stand_together():
    samples = step_samples(PROMPTS, 0, 6, 3, 0)
    assert len({sample.prompt.id for sample in samples}) == 2
    assert [sample.sample_id for sample in samples] == [0, 1, 2, 0, 1, 2]


def test_a_prompt_met_twice_in_a_step_gets_further_sample_ids():
    samples = step_samples(PROMPTS[:2], 0, 6, 1, 0)
    assert Counter((sample.prompt.id, sample.sample_id) for sample in samples) == {
        (prompt, sample): 1 for prompt in (0, 1) for sample in (0, 1, 2)
    }


def test_seeds_come_from_run_step_prompt_and_sample_alone():
    for step in (0, 3):
        for sample in step_samples(PROMPTS, step, 12, 2, run_seed=9):
            assert sample.seed == sample_seed(9, step, sample.prompt.id, sample.sample_id)


def test_several_rounds_of_a_step_share_no_sample():
    few = PROMPTS[:2]
    rounds = [step_samples(few, round_, 6, 2, 0, first_sample=round_ * 6) for round_ in range(3)]
    keys = [(sample.prompt.id, sample.sample_id) for round_ in rounds for sample in round_]
    assert len(set(keys)) == len(keys) == 18
