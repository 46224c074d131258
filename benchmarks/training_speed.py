"""How fast does each experiment train, compared with plain Keras code and with PyTorch?

The plain way is `experiments/in_one_file.py` with the experiment's network: all images in memory
as float32, `model.fit`, Keras's own layers, TensorFlow's defaults. The ways take turns, epoch by
epoch: a machine that slows down for a while slows all of them, and their ratio stands.
"""

import importlib.util
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from machinery.errors import readable_errors

from comparison import Way, compare, comparison_parser, parse_comparison
from harness_way import train_with_the_harness
from plain_way import train_plainly
from pytorch_way import train_with_pytorch


def main():
    parser = comparison_parser()
    parser.add_argument(
        "--torch", action="store_true", help="measure PyTorch too, if it is installed"
    )
    options = parse_comparison(parser)
    if options.torch and not importlib.util.find_spec("torch"):
        parser.error("argument --torch: PyTorch is not installed, `pip install torch` does that")
    references = ["plain", "PyTorch"] if options.torch else ["plain"]
    compare(ways_to_train(options), references, options)


def ways_to_train(options):
    plain = {"TF_ENABLE_ONEDNN_OPTS": "0"} if options.as_avx2 else {}
    ways = {"plain": Way(train_plainly, plain), "ours": Way(train_with_the_harness)}
    if options.torch:
        ways["PyTorch"] = Way(train_with_pytorch)
        if options.mixed_precision:
            ways["PyTorch, bfloat16"] = Way(partial(train_with_pytorch, dtype="bfloat16"))
    return ways


if __name__ == "__main__":
    with readable_errors():
        main()
