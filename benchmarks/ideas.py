"""What is each speed-up worth? Training as the experiments do, and without one idea at a time.

    onednn              TensorFlow computes with oneDNN; without: in float32, see below
    bfloat16            layers compute in bfloat16
    fused-batch-norm    batch normalization is one operation

A ratio below 1 says that training is slower without the idea. Nobody would compute in bfloat16
without oneDNN, so both are left out together; with --no-mixed-precision, oneDNN is left out alone.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from machinery.errors import readable_errors

from comparison import Way, compare, comparison_parser, parse_comparison
from harness_way import train_with_the_harness

IDEAS = ("onednn", "bfloat16", "fused-batch-norm")


def main():
    parser = comparison_parser(("dropout_augmentation_batchnorm",))  # it uses all of them
    parser.add_argument("--without", nargs="+", choices=IDEAS, default=IDEAS, metavar="IDEA",
        help="which ideas to leave out, one at a time (all)")  # fmt: skip
    options = parse_comparison(parser)
    ways = ways_without(options)
    if not ways:
        parser.error("argument --without: training is in float32 without bfloat16 already")
    compare({"ours": Way(train_with_the_harness)} | ways, ["ours"], options)


def ways_without(options):
    """Return a way for each of the ideas that is in use and to be left out."""
    ways = {}
    for idea in options.without:
        if idea == "onednn":
            train = partial(train_with_the_harness, without="bfloat16")
            ways["without onednn"] = Way(train, {"TF_ENABLE_ONEDNN_OPTS": "0"})
        elif idea != "bfloat16" or options.mixed_precision:
            ways[f"without {idea}"] = Way(partial(train_with_the_harness, without=idea))
    return ways


if __name__ == "__main__":
    with readable_errors():
        main()
