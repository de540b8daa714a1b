"""Splits in which each value of a column has the same shares."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

from rayrlhf.data.ingest.account import Account, DataError
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.ingest.records import Record
from rayrlhf.data.tokens.splits import position
from rayrlhf.data.tools.options import Inputs


class Strata:
    """Where each stratum's prompts are cut.

    A prompt's place is its hash and the seed, as in a split without strata; a stratum's prompts are cut where its
    shares are, to the nearest prompt. A prompt in several strata belongs to the first one: it is in one part only.
    """

    def __init__(self, seed: int, stratum_of: dict[float, str], shares: Sequence[float]) -> None:
        """stratum_of: for each prompt's place its stratum."""
        places: dict[str, list[float]] = defaultdict(list)
        for place, stratum in stratum_of.items():
            places[stratum].append(place)
        self._seed, self._stratum_of = seed, stratum_of
        reached = list(itertools.accumulate(shares[:-1]))
        self._cuts = {
            stratum: [_cut(sorted(of_stratum), share) for share in reached] for stratum, of_stratum in places.items()
        }

    @staticmethod
    def of(inputs: Inputs, column: str, shares: Sequence[float]) -> Strata:
        """The strata that `column`'s values make of all inputs, which are read for that. Raises DataError for a column
        that no row has."""
        seed, stratum_of = inputs.config.seed, dict[float, str]()
        for record in read_records(inputs.sources, inputs.kind, Account(), [column]):
            stratum_of.setdefault(position(record.prompt.opening, seed), record.columns or "")
        return Strata(seed, stratum_of, shares)

    def part_of(self, record: Record) -> int:
        """Index of the record's part. Raises DataError for a prompt that was not there when the strata were made."""
        place = position(record.prompt.opening, self._seed)
        if place not in self._stratum_of:
            raise DataError(f"{record.origin}: it was changed while it was read; run again when it is complete")
        return bisect_right(self._cuts[self._stratum_of[place]], place)


def _cut(places: list[float], share: float) -> float:
    """The place before which `share` of the sorted `places` lie."""
    count = round(share * len(places))
    return places[count] if count < len(places) else 1.0
