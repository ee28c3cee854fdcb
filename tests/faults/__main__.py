"""Run campaigns and count how their trials ended; exit code 1 where one ended badly."""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from . import corruptions, disk, fuzzing, kills, memory, numbers, places, ranks, soak
from .children import warm

Campaign = Callable[[int, Path, int], Iterator[str]]

CAMPAIGNS: dict[str, Campaign] = {
    "kills": kills.at_random,
    "changes": kills.before_changes,
    "corruptions": corruptions.corrupted,
    "disk": disk.without_room,
    "memory": memory.stepped_down,
    "numbers": numbers.not_a_number,
    "places": places.of_runs,
    "ranks": ranks.killed,
    "fuzzing": fuzzing.fuzzed,
    "soak": soak.soaked,
}


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("campaigns", nargs="*", help=f"of {', '.join(CAMPAIGNS)}; all if none")
    parser.add_argument(
        "--n", type=int, default=200, help="trials, or all there are; of soak, minutes"
    )
    parser.add_argument("--seed", type=int, default=0)
    request = parser.parse_args()
    warm()
    bad = 0
    for name in request.campaigns or CAMPAIGNS:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MEZZOTINT_CACHE"] = f"{folder}/kept"
            endings: Counter[str] = Counter()
            for ending in CAMPAIGNS[name](request.n, Path(folder), request.seed):
                endings[ending] += 1
                print(f"\r{name}: {endings.total()} trials", end="", file=sys.stderr, flush=True)
        print(f"\n{name}: {endings.total()} trials, {time.monotonic() - start:.0f} s")
        for ending, count in sorted(endings.items(), key=lambda item: (-item[1], item[0])):
            print(f"  {count:5}  {ending}")
        bad += sum(count for ending, count in endings.items() if "BAD" in ending)
    return 1 if bad else 0


sys.exit(main())
