"""Micro-batches by tokens, the same plan on every rank.

All ranks compute the plan from the same lengths, so no communication is needed. Every rank gets the same number of
micro-batches: a sharded model runs a collective in each forward pass and would hang otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Plan = list[list[list[int]]]
"""plan[rank][i]: the rows of that rank's i-th micro-batch. An empty one is a forward pass that counts nothing."""


def plan_microbatches(lengths: Sequence[int] | np.ndarray, max_tokens: int, num_ranks: int = 1) -> Plan:
    """Split rows 0 … len(lengths)−1 into micro-batches of at most `max_tokens` padded tokens each.

    Deterministic. Rows are sorted by length, which keeps padding small. A row longer than `max_tokens` is a micro-batch
    of its own. Every row appears exactly once over all ranks.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-int(lengths[row]), row))
    groups: list[list[int]] = []
    for row in order:
        # Longest rows first, so a group's first row sets its padded width.
        if groups and (len(groups[-1]) + 1) * int(lengths[groups[-1][0]]) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    while len(groups) % num_ranks:
        largest = max(range(len(groups)), key=lambda index: len(groups[index]))
        group = groups.pop(largest)
        if len(group) == 1:
            groups.insert(largest, group)
            groups.append([])
        else:
            middle = (len(group) + 1) // 2
            groups[largest:largest] = [group[:middle], group[middle:]]
    return [groups[rank::num_ranks] for rank in range(num_ranks)]


def epoch_batches(num_rows: int, batch_size: int, seed: Sequence[int]) -> list[np.ndarray]:
    """A seeded permutation of the rows, cut into batches of `batch_size`; the last may be smaller."""
    order = np.random.default_rng(list(seed)).permutation(num_rows)
    return [order[start : start + batch_size] for start in range(0, num_rows, batch_size)]
