"""Run another project's own functions, our references and our classes on 60 random ragged batches in float64.

    python tests/parity/run_peers.py PATH_TO_CHECKOUT

The checkout is one of OpenRLHF, DeepSpeedExamples or ColossalAI. Prints the largest relative errors against what the
project computes. The exit status is 1 if one is above 1e-6, and 2 if the path is no such checkout.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
from ours import ours, quantities, ragged, relative_error
from peers import PEERS, Case, Peer, load
from references import Ragged
from rich.console import Console
from rich.table import Table

BATCHES = 60
LIMIT = 1e-6


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    if len(arguments) != 1 or (peer := recognized(Path(arguments[0]))) is None:
        print(usage(arguments), file=sys.stderr)
        return 2
    try:
        errors = {case.name: largest_errors(case) for case in load(peer, Path(arguments[0]))}
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        print(f"{arguments[0]} has other functions than {peer.name} ({error}): check that version out", file=sys.stderr)
        return 2
    table = Table("case", "quantity", "references", "rayrlhf", title=f"{peer.name}: largest relative errors")
    for name, quantity_errors in errors.items():
        for quantity, pair in quantity_errors.items():
            table.add_row(name, quantity, *(f"{error:.1e}" for error in pair))
    Console().print(table)
    # A NaN is an error too.
    equal = all(error <= LIMIT for found in errors.values() for pair in found.values() for error in pair)
    print(f"{'All' if equal else 'Not all'} errors are at most {LIMIT:g} on {BATCHES} batches.")
    return 0 if equal else 1


def recognized(checkout: Path) -> Peer | None:
    return next((peer for peer in PEERS if (checkout / peer.file).is_file()), None)


def usage(arguments: list[str]) -> str:
    found = f"{arguments[0]} is no checkout that can be compared" if len(arguments) == 1 else "one path is expected"
    known = "\n".join(f"  {peer.name}, which has {peer.file}" for peer in PEERS)
    return f"{found}. Give the root of a checkout of one of\n{known}"


def largest_errors(case: Case) -> dict[str, tuple[float, float]]:
    """Of each quantity: of the reference and of our own class."""
    errors: dict[str, list[tuple[float, float]]] = {}
    for batch in range(BATCHES):
        data, padding = drawn(batch)
        wanted = quantities(case.peer, data)
        reference = quantities(case.reference, data)
        own = quantities(partial(ours, case.algorithm, padding=padding), data)
        for name, value in wanted.items():
            pair = (relative_error(reference[name], value), relative_error(own[name], value))
            errors.setdefault(name, []).append(pair)
    return {name: tuple(np.max(pairs, axis=0)) for name, pairs in errors.items()}


def drawn(seed: int) -> tuple[Ragged, int]:
    """A batch of one to three groups of two to four responses, and how far to pad it."""
    generator = np.random.default_rng(seed)
    per_group = int(generator.integers(2, 5))
    count = per_group * int(generator.integers(1, 4))
    lengths = [(int(generator.integers(1, 5)), int(generator.integers(1, 8))) for _ in range(count)]
    return ragged(lengths, seed, per_group), int(generator.integers(4))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
