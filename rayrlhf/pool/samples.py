"""Which prompts a step samples, and with which seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayrlhf.types import Prompt, Sample, sample_seed


def step_samples(
    prompts: Sequence[Prompt], step: int, batch_size: int, num_generations: int, run_seed: int, first_sample: int = 0
) -> list[Sample]:
    """The `batch_size` samples of a step: every prompt once per pass over the set, each pass in its own seeded order.

    A prompt that a step meets twice, because the set is small, gets further sample ids. Ids begin at `first_sample`.
    """
    per_step = batch_size // num_generations
    next_id: dict[int, int] = {}
    samples: list[Sample] = []
    permutations: dict[int, np.ndarray] = {}
    for position in range(step * per_step, (step + 1) * per_step):
        epoch, index = divmod(position, len(prompts))
        if epoch not in permutations:
            permutations[epoch] = np.random.default_rng([run_seed, epoch]).permutation(len(prompts))
        prompt = prompts[permutations[epoch][index]]
        for _ in range(num_generations):
            sample_id = next_id.get(prompt.id, first_sample)
            next_id[prompt.id] = sample_id + 1
            samples.append(Sample(prompt, sample_id, sample_seed(run_seed, step, prompt.id, sample_id)))
    return samples
