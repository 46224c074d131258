"""Say what is on a photo: class number, name, and the probabilities of the likeliest classes.

Any image that Pillow reads will do. The model knows ten classes and has only ever seen photos of
32x32 pixels with one thing in the middle; whatever is on the photo, it answers with one of the ten.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dataset import CLASS_NAMES
from harness import scale_pixels
from options import UsageError, add_model, readable_errors
from results import load_final_model

DEER = Path(__file__).with_name("sample_image.png")


def load_image(path):
    """Read a photo as the model wants it.

    The largest square in the middle is taken and scaled down. Transparent parts become white.

    Args:
        path: an image file of any size, mode and format that Pillow reads; of an animation, the
            first picture is taken.

    Returns:
        uint8 RGB (32, 32, 3) in 0..255.

    Raises:
        UsageError: if it is missing, not an image, damaged, or has more pixels than Pillow
            considers safe (89 million): a file of a few bytes can claim any size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
                image = to_rgb(image)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: too many pixels, make it smaller first ({error})") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise UsageError(f"{path}: not an image, or damaged ({error})") from error
    return np.asarray(ImageOps.fit(image, (32, 32), Image.Resampling.LANCZOS))


def to_rgb(image):
    """Convert a Pillow image of any mode to RGB, 8 bits per channel."""
    if image.mode.startswith(("I", "F")):
        # More than 8 bits of gray, which Pillow would clip. 16 bits, unless the values say other.
        gray = np.asarray(image, dtype=np.float64)
        white = 65535 if gray.max() > 255 else 255 if gray.max() > 1 else 1
        image = Image.fromarray((gray.clip(0, white) * 255 / white).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [IMAGE ...]",
    )
    parser.add_argument("images", nargs="*", default=[DEER], metavar="IMAGE",
        help=f"photos ({DEER.name}, a deer of CIFAR-10's test set)")  # fmt: skip
    add_model(parser)
    parser.add_argument("--top", type=int, choices=range(1, 11), default=3, metavar="N",
        help="how many classes to print, 1 to 10 (%(default)s)")  # fmt: skip
    options = parser.parse_args()

    model, training = load_final_model(options.model)
    if training["remark"]:
        print(f"Trained {training['remark']}: expect mistakes.")

    unreadable = 0
    for path in options.images:
        try:
            image = load_image(path)
        except UsageError as error:
            print(f"predict.py: error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        (probabilities,) = model.predict(scale_pixels(image[None]), verbose=0)
        likeliest = probabilities.argsort()[::-1][: options.top]
        guesses = ", ".join(f"{CLASS_NAMES[i]} {100 * probabilities[i]:.1f} %" for i in likeliest)
        shown = DEER.name if path == DEER else path
        print(f"{shown}: {likeliest[0]} {CLASS_NAMES[likeliest[0]]} ({guesses})")
    return 2 if unreadable else 0


if __name__ == "__main__":
    with readable_errors():
        sys.exit(main())
