"""The command line: the options that the scripts share, and the commands that they suggest."""

import argparse
import os
import shlex
import sys
import tempfile
from pathlib import Path

from data.cifar10 import CIFAR10_TRAINING_IMAGES, SAMPLE_TRAINING_IMAGES
from data.dataset import MOST_IMAGE_SIZE, SMALLEST_SIZE
from data.download import folder_of_batches
from data.splits import Fold
from machinery.errors import printable
from machinery.records import TENSORBOARD

ROOT = Path(__file__).parents[1]
RUNS = "runs"
FINAL_MODEL = "final_model.h5"
SHIPPED = ROOT / "pretrained"  # models that are there from the start

# With --sample, unless --epochs and --batch-size say otherwise: a minute of training, whose
# learning curves show what those of the whole dataset show.
SAMPLE_EPOCHS = 20
SAMPLE_BATCH_DIVISOR = 4

MOST_EPOCHS = 1_000_000
MOST_IMAGES_PER_STEP = 1_000_000


class Parser(argparse.ArgumentParser):
    """One whose errors are one line, whatever was typed."""

    def error(self, message):
        super().error(printable(message))


def script_parser(usage="%(prog)s [options]"):
    """Return a parser that explains the script by its docstring."""
    return Parser(
        description=sys.modules["__main__"].__doc__,  # None with python -OO
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=usage,
        allow_abbrev=False,
    )


def option_parser(epochs):
    """Return the parser of the options that all experiments and finalize.py share.

    Args:
        epochs: what `--epochs` says of its default, a number or a text.
    """
    parser = script_parser()
    add_data(parser)
    add_image_size(parser)
    add = parser.add_argument
    add("--epochs", type=whole_number(1, MOST_EPOCHS), metavar="N",
        help=f"passes over the images ({epochs}; {SAMPLE_EPOCHS} with --sample)")  # fmt: skip
    add("--batch-size", type=whole_number(1, MOST_IMAGES_PER_STEP), metavar="N",
        help="images per step (64; batch_256.py and batch_256_scaled.py: 256, speedrun.py: 512, "
        "transfer_shipped.py: 16; a quarter of that with --sample)")  # fmt: skip
    add("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N",
        help="same seed, same machine: same numbers (%(default)s); other seeds have a folder of "
        "their own, DIR/seed_N")  # fmt: skip
    add("--limit", type=whole_number(20), metavar="N",
        help="use N training images, and N/5 test images, as many of each class")  # fmt: skip
    add_mixed_precision(parser)
    add("--validation", choices=("test", "holdout"),
        help="what is evaluated after each epoch: the test set, as the tutorial does, or a tenth "
        "of the training images, so that the test set is used once, at the end (test; "
        "early_stopping.py and reduce_on_plateau.py: holdout)")  # fmt: skip
    add("--fold", type=fold_of_folds, metavar="I/K",
        help="train on the training images outside fold I of K, from 1, and evaluate on that fold "
        "after each epoch; in DIR/fold_I_of_K. run_all.py --folds K runs all of them")  # fmt: skip
    add_out(parser)
    add("--resume", action="store_true",
        help="go on with an interrupted run after its last finished epoch")  # fmt: skip
    add("--tensorboard", action="store_true",
        help="log loss and accuracy for TensorBoard, in DIR/tensorboard; needs one more "
        "package, pip install tensorboard")  # fmt: skip
    return parser


def path_of(text):
    """Parse a path, in which `~` means home; a type for argparse."""
    if not text:  # of a variable of the shell that is not set, for example
        raise argparse.ArgumentTypeError("it is empty")
    return os.path.expanduser(text)


def add_data(parser):
    """Add the options that choose the images."""
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", type=path_of, metavar="PATH",
        help="cifar-10-python.tar.gz, a folder extracted from it, or an .npz; or pictures of your "
        "own, in train/CLASS/ and test/CLASS/, or in CLASS/; the environment variable "
        "CIFAR10_PATH does the same (default: a download, kept for later)")  # fmt: skip
    data.add_argument("--sample", action="store_true",
        help="use the 1,250 images of CIFAR-10 that ship with this project: quick, no download, "
        "low accuracy")  # fmt: skip


def add_image_size(parser):
    parser.add_argument("--image-size", type=multiple_of_8, metavar="N",
        help="height and width to scale pictures of your own to, a multiple of 8 (32)")  # fmt: skip


def multiple_of_8(text):
    """Parse a size in pixels that three poolings can halve; a type for argparse."""
    number = whole_number(SMALLEST_SIZE, MOST_IMAGE_SIZE)(text)
    if number % SMALLEST_SIZE:
        raise argparse.ArgumentTypeError(f"{number} is not a multiple of {SMALLEST_SIZE}")
    return number


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


def add_out(parser, default=RUNS):
    parser.add_argument("--out", type=path_of, default=default, metavar="DIR",
        help="folder for what the script leaves behind (%(default)s)")  # fmt: skip


def add_model(parser):
    """Add the option that chooses the model to use."""
    parser.add_argument("--model", type=path_of, default=model_to_use(), metavar="FILE",
        help=f"the model that finalize.py saved ({FINAL_MODEL}; where there is none, that of "
        "baseline3 that ships with this project)")  # fmt: skip


def model_to_use():
    """Return the path of the final model in this folder, or, if there is none, of the shipped one.

    Returns:
        A text; of the shipped one, relative to this folder if it is inside. If there are a `.h5`
        and a `.keras`, the newer one.
    """
    both = FINAL_MODEL, str(Path(FINAL_MODEL).with_suffix(".keras"))
    if models := [model for model in both if os.path.exists(model)]:
        return max(models, key=os.path.getmtime)
    return pasted(SHIPPED / "baseline3.h5")


def pasted(path):
    """Return a path of the project as a user would type it, a text: short if it is in here."""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short


def add_weights(parser):
    parser.add_argument("--weights", type=path_of, default="imagenet", metavar="FILE",
        help="what the network has learned of ImageNet, as Keras saves it without the dense layers "
        "(default: Keras's download, kept for later)")  # fmt: skip


def parse_options(parser):
    """Parse the command line; refuse what makes no sense before anything is loaded."""
    options = parser.parse_args()
    refuse_nonsense(parser, options)
    require_tensorboard(parser, options)
    if hasattr(options, "out"):
        writable_folder(parser, "--out", options.out)
    return options


def own_data(options):
    """Return the path of the images that the user names, "" if he takes those of the project."""
    if getattr(options, "sample", False):
        return ""
    return getattr(options, "data", None) or os.path.expanduser(os.environ.get("CIFAR10_PATH", ""))


def refuse_nonsense(parser, options):
    """Leave with a message if options contradict each other or the images."""
    most = SAMPLE_TRAINING_IMAGES if getattr(options, "sample", False) else CIFAR10_TRAINING_IMAGES
    own = own_data(options)
    if not own and getattr(options, "limit", None) and options.limit > most:
        parser.error(f"argument --limit: {options.limit} is above the {most:,} training images")
    if getattr(options, "fold", None) and options.validation == "holdout":
        parser.error("--fold and --validation holdout exclude each other: both hold images out")
    if hasattr(options, "out") and own and not folder_of_batches(Path(own)):
        refuse_among_images(parser, "--out", options.out, own)


def refuse_among_images(parser, option, folder, images):
    """Leave with a message if what is written to a folder would be among images that are read.

    Args:
        option: that names the folder.
        images: a path; a file has nothing among it.
    """
    if os.path.isdir(images) and Path(folder).resolve().is_relative_to(Path(images).resolve()):
        parser.error(
            f"argument {option}: {printable(folder)} is among the images, and what is left there "
            "would be taken for some: name a folder elsewhere"
        )


def require_tensorboard(parser, options):
    """Leave with a message if `--tensorboard` asks for a package that is not there.

    Keras's callback can be made without it, and would fail at the end of the first epoch.
    """
    if getattr(options, "tensorboard", False):
        try:
            from tensorboard import summary  # noqa: F401
        except ImportError:  # an optional extra
            parser.error("--tensorboard needs TensorBoard: `pip install tensorboard`")


def writable_folder(parser, option, folder):
    """Make a folder and try to write to it; leave with a message if that fails."""
    shown = printable(str(folder))
    if os.path.lexists(folder) and not os.path.isdir(folder):
        parser.error(f"argument {option}: {shown} is there, but is no folder: name another one")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        os.getcwd()  # raises, with the better reason, if the folder that the user is in is gone
        parser.error(f"argument {option}: can't write to {shown}: {error.strerror}")


def fold_of_folds(text):
    """Parse `2/5`; a type for argparse."""
    try:
        return Fold.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from error


def words_of(options, parser):
    """Return what was typed to get these options, where they are not the parser's defaults."""
    words = []
    for name, value in vars(options).items():
        option = name.replace("_", "-")
        if value == parser.get_default(name):
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += option_words(option, value)
    return words


def option_words(name, value):
    """Return an option with its value as words of a command; a value may begin like an option."""
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]


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


def command(script, options=None, photos=None):
    """Return a command that can be pasted into the shell: another script, on what this one leaves.

    Args:
        script: its path from the project's folder.
        options: of this script. None, or where they are the defaults: none for the other one.
        photos: what predict.py is to look at, a path; None for the deer.
    """
    words = ["python", pasted(ROOT / script)]
    out, model = getattr(options, "out", RUNS), getattr(options, "model", model_to_use())
    if script == "compare.py" and out != RUNS:
        words.append(out)
    usual = FINAL_MODEL if script == "finalize.py" else model_to_use()
    if script in ("evaluate.py", "predict.py", "finalize.py") and model != usual:
        words += ["--model", model]
    if script == "predict.py" and photos:
        words.append(photos)
    if script == "evaluate.py" or script.startswith("experiments/"):
        words += ["--sample"] if getattr(options, "sample", False) else []
        words += ["--data", options.data] if getattr(options, "data", None) else []
    if script.startswith("experiments/") and getattr(options, "image_size", None):
        words += ["--image-size", str(options.image_size)]
    # A path that begins like an option would be taken for one.
    paths = {out, model, photos, getattr(options, "data", None)}
    return shlex.join(
        f"./{each}" if each in paths and each.startswith("-") else each for each in words
    )


def tensorboard_command(out):
    """Return the command that shows the logs of all runs in a folder, beside each other."""
    return shlex.join(["tensorboard", "--logdir", str(Path(out) / TENSORBOARD)])
