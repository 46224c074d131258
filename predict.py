"""Say what is on a photo: class number, name, and the probabilities of the likeliest classes.

A JPEG, PNG, WebP, GIF, TIFF or BMP will do. The model knows CIFAR-10's ten classes, or those of
your own pictures, and has only ever seen small photos with one thing in the middle; whatever is on
the photo, it answers with one of the classes.
"""

import os
import sys
from pathlib import Path

from data.dataset import MOST_CLASSES
from data.image import load_image
from harness import prep_pixels
from machinery.errors import UsageError, readable_errors
from machinery.final_model import load_final_model
from machinery.options import add_model, parse_options, script_parser, whole_number

DEER = Path(__file__).with_name("sample_image.png")


def main():
    parser = script_parser("%(prog)s [options] [IMAGE ...]")
    parser.add_argument("images", type=os.path.expanduser, nargs="*", default=[DEER],
        metavar="IMAGE",
        help=f"photos ({DEER.name}, a deer of CIFAR-10's test set)")  # fmt: skip
    add_model(parser)
    parser.add_argument("--top", type=whole_number(1, MOST_CLASSES), default=3, metavar="N",
        help="how many classes to print (%(default)s)")  # fmt: skip
    options = parse_options(parser)

    model, training = load_final_model(options.model)
    class_names = training["dataset"]["class_names"]
    if options.images == [DEER] and "deer" not in class_names:
        parser.error(f"{options.model} knows {', '.join(class_names)}: name a photo of one of them")
    if training["remark"]:
        print(f"Trained {training['remark']}: expect mistakes.")

    unreadable = 0
    for path in options.images:
        try:
            image = load_image(path, model.input_shape[1])
        except UsageError as error:
            print(f"predict.py: error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        (probabilities,) = model.predict(*prep_pixels(image[None]), verbose=0)
        likeliest = probabilities.argsort()[::-1][: options.top]
        guesses = ", ".join(f"{class_names[i]} {100 * probabilities[i]:.1f} %" for i in likeliest)
        shown = DEER.name if path == DEER else path
        print(f"{shown}: {likeliest[0]} {class_names[likeliest[0]]} ({guesses})")
    return 2 if unreadable else 0


if __name__ == "__main__":
    with readable_errors():
        sys.exit(main())
