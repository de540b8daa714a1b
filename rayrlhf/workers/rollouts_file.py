"""A step's rollouts as text, with their scores, in a Parquet file for people to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rayrlhf.algorithms import ScoredRollouts
from rayrlhf.workers.rewarder import decode_samples
from rayrlhf.workers.score_share import ScoreShare


def write_rollouts(file: str, scored: ScoredRollouts, scores: ScoreShare, tokenizer: Any) -> None:
    """One row for each rollout, rejected ones too."""
    import pyarrow
    import pyarrow.parquet

    rollouts = scored.rollouts
    kl = np.full(len(rollouts), np.nan, np.float32)
    if scored.ref_logprobs is not None:
        kl = (scored.old_logprobs - scored.ref_logprobs).sum(1)
    samples = decode_samples(rollouts, tokenizer, gold_answers=None)
    table = pyarrow.table(
        {
            "prompt_id": rollouts.prompt_ids,
            "sample_id": rollouts.sample_ids,
            "prompt": [sample.prompt for sample in samples],
            "response": [sample.response for sample in samples],
            "score": scores.values,
            **{f"score/{name}": scores.part_values[:, k] for k, name in enumerate(scores.part_names)},
            "rejected": [why.reason if (why := scores.rejections.get(row)) else None for row in scores.rows],
            "kl": kl,
            "response_length": rollouts.response_lengths,
            "finished": rollouts.finished,
            "version": rollouts.oldest_versions,
            "newest_version": rollouts.newest_versions,
        }
    )
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, file)
