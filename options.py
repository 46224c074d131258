"""The command line: the options that the scripts share, and how they report errors."""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from dataset import CIFAR10_TRAINING_IMAGES, SAMPLE_TRAINING_IMAGES, DatasetError

FINAL_MODEL = "final_model.h5"
SAMPLE_EPOCHS = 10  # unless --epochs says otherwise: enough to see everything work in a minute


class UsageError(Exception):
    """The user asked for what can't be done; the message says why and what to do instead."""


@contextlib.contextmanager
def readable_errors():
    """Turn errors of the user's or the machine's into one line and the exit code 2."""
    try:
        yield
    except (UsageError, DatasetError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports a program that Ctrl-C ended


def option_parser(epochs):
    """Return the parser of the options that all experiments and finalize.py share.

    Args:
        epochs: what `--epochs` says of its default, a number or a text.
    """
    parser = data_parser()
    add = parser.add_argument
    add("--epochs", type=whole_number(1), metavar="N",
        help=f"passes over the images ({epochs}; {SAMPLE_EPOCHS} with --sample)")  # fmt: skip
    add("--batch-size", type=whole_number(1), metavar="N",
        help="images per step (64; speedrun.py: 512)")  # fmt: skip
    add("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N",
        help="same seed, same machine: same numbers (%(default)s)")  # fmt: skip
    add("--limit", type=whole_number(20), metavar="N",
        help="use N training images, and N/5 test images, as many of each class")  # fmt: skip
    add_mixed_precision(parser)
    add("--validation", choices=("test", "holdout"), default="test",
        help="what is evaluated after each epoch: the test set, as the tutorial does, or a tenth "
        "of the training images, so that the test set is used once, at the end")  # fmt: skip
    add("--out", default="runs", metavar="DIR", help="folder for the results (%(default)s)")
    add("--resume", action="store_true",
        help="go on with an interrupted run after its last finished epoch")  # fmt: skip
    return parser


def add_mixed_precision(parser):
    parser.add_argument("--mixed-precision", action=argparse.BooleanOptionalAction,
        default=has_native_bfloat16(),
        help="compute in bfloat16, with weights in float32; faster where the processor has "
        "instructions for it, and the default there")  # fmt: skip


def has_native_bfloat16():
    """Tell whether the processor has instructions for bfloat16, as far as Linux on x86 says."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def data_parser():
    """Return a parser of the options that choose the data."""
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options]",
        allow_abbrev=False,
    )
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", metavar="PATH",
        help="cifar-10-python.tar.gz, a folder extracted from it, or an .npz; the environment "
        "variable CIFAR10_PATH does the same (default: a download, kept for later)")  # fmt: skip
    data.add_argument("--sample", action="store_true",
        help="use the 1,250 images of CIFAR-10 that ship with this project: quick, no download, "
        "low accuracy")  # fmt: skip
    return parser


def add_model(parser, purpose="the model that finalize.py saved"):
    parser.add_argument("--model", default=FINAL_MODEL, metavar="FILE",
        help=f"{purpose} (%(default)s)")  # fmt: skip


def model_option(options):
    """Return what another script needs to take the same model, "" if it does so anyway."""
    return "" if options.model == FINAL_MODEL else f" --model {options.model}"


def parse_options(parser):
    """Parse the command line; refuse what makes no sense before anything is loaded."""
    options = parser.parse_args()
    most = SAMPLE_TRAINING_IMAGES if options.sample else CIFAR10_TRAINING_IMAGES
    if options.limit and options.limit > most:
        parser.error(f"argument --limit: {options.limit} is above the {most:,} training images")
    writable_folder(parser, "--out", options.out)
    return options


def writable_folder(parser, option, folder):
    """Make a folder and try to write to it; leave with a message if that fails."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"argument {option}: can't write to {folder}: {error.strerror}")


def whole_number(least, most=None):
    """Return a type for argparse: a whole number from `least` to `most`."""
    allowed = f"from {least} to {most}" if most else f"of at least {least}"

    def parse(text):
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least or (most and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {allowed}")
        return number

    return parse
