"""Which prompts a step samples, and with which seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayrlhf.types import Prompt, Sample, sample_seed


class PromptOrder:
    """Deals a run's prompts out in batches: every prompt once per pass over the set, each pass in its own seeded order.

    A batch goes on where the last one ended, whichever step they are for.
    """

    def __init__(self, prompts: Sequence[Prompt], batch_size: int, num_generations: int, run_seed: int) -> None:
        self._prompts, self._batch_size, self._num_generations = prompts, batch_size, num_generations
        self._run_seed = run_seed
        self._position = 0

    def draw(self, step: int, turn: int = 0) -> list[Sample]:
        """The next `batch_size` samples, as batch `turn` of `step`.

        A prompt that a step meets twice, because the set is small, gets further sample ids; no two turns share one.
        """
        next_id: dict[int, int] = {}
        samples: list[Sample] = []
        permutations: dict[int, np.ndarray] = {}
        first, self._position = self._position, self._position + self._batch_size // self._num_generations
        for position in range(first, self._position):
            epoch, index = divmod(position, len(self._prompts))
            if epoch not in permutations:
                permutations[epoch] = np.random.default_rng([self._run_seed, epoch]).permutation(len(self._prompts))
            prompt = self._prompts[permutations[epoch][index]]
            for _ in range(self._num_generations):
                sample_id = next_id.get(prompt.id, turn * self._batch_size)
                next_id[prompt.id] = sample_id + 1
                samples.append(Sample(prompt, sample_id, sample_seed(self._run_seed, step, prompt.id, sample_id)))
        return samples
