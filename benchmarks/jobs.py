"""One run on all cores, or two runs on half of them each: which trains more images per second?

`run_all.py --jobs` is what it is for. The two ways take turns, epoch by epoch.
"""

import os
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.download import find_dataset
from machinery.errors import readable_errors

from comparison import comparison_parser, parse_comparison, spread
from harness_way import train_on_cores
from workers import Worker


def main():
    parser = comparison_parser(("baseline3",))
    options = parse_comparison(parser)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two runs at once need two cores")
    find_dataset(options.data, options.sample)  # downloads, or fails, before anything starts
    print("\n| experiment | one run, images/s | two runs together | ratio (least to most) |")
    print("|---|---:|---:|---:|", flush=True)
    for name in options.experiments:
        one = [Worker(train_on_cores, name, options, cores)]
        two = [Worker(train_on_cores, name, options, cores[half::2]) for half in (0, 1)]
        speeds = [(take_turn(one), take_turn(two)) for _ in range(options.rounds)]
        for worker in one + two:
            worker.stop()
        alone, together = (median(way) for way in zip(*speeds, strict=True))
        ratios = spread([two / one for one, two in speeds], 2)
        print(f"| `{name}` | {alone:,.0f} | {together:,.0f} | {ratios} |", flush=True)


def take_turn(workers):
    """Have workers train an epoch at the same time; return their images per second together."""
    for worker in workers:
        worker.begin_turn()
    return sum(worker.end_turn()["training"] for worker in workers)


if __name__ == "__main__":
    with readable_errors():
        main()
