"""Say what is on a photo: class number, name, and the probabilities of the likeliest classes.

A JPEG, PNG, WebP, GIF, TIFF, BMP or PPM will do, or a folder of them. The model knows CIFAR-10's
ten classes, or those of your own pictures, and has only ever seen small photos with one thing in
the middle; whatever is on the photo, it answers with one of the classes.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this copy of the project

from data.folder import walk
from data.image import DEER, load_image, load_whole
from harness import prep_pixels
from machinery.errors import UsageError, printable, readable_errors
from machinery.figures import picture_of, save_figure
from machinery.files import blame
from machinery.final_model import load_final_model, require_deer, require_probabilities
from machinery.options import (
    add_model,
    parse_options,
    path_of,
    refuse_among_images,
    script_parser,
    whole_number,
    writable_folder,
)

import matplotlib.pyplot as plt

PHOTO_SIZE = 400  # in pixels, of the longer side where it is drawn


def main():
    parser = script_parser("%(prog)s [options] [IMAGE ...]")
    add = parser.add_argument
    add("images", type=path_of, nargs="*", default=[DEER], metavar="IMAGE",
        help=f"photos, or folders of them ({DEER.name}, a deer of the test set)")  # fmt: skip
    add_model(parser)
    add("--top", type=whole_number(1), default=3, metavar="N",
        help="how many classes to print (%(default)s)")  # fmt: skip
    add("--json", action="store_true",
        help="print nothing but a line of JSON for each photo, with all probabilities")  # fmt: skip
    add("--save", type=path_of, metavar="DIR",
        help="draw each answer into this folder: the photo, what the model sees of it, and the "
        "probabilities")  # fmt: skip
    options = parse_options(parser)
    if options.save:
        for path in options.images:
            refuse_among_images(parser, "--save", options.save, path)
        writable_folder(parser, "--save", options.save)

    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        model, training = load_final_model(options.model)
        class_names = training["dataset"]["class_names"]
        if options.images == [DEER]:
            require_deer(class_names, options.model)
        if training["remark"]:
            print(f"Trained {training['remark']}: expect mistakes.")

    failed, pictures = 0, set()

    def fail(error):
        nonlocal failed
        print(f"predict.py: error: {printable(str(error))}", file=sys.stderr)
        failed += 1

    for path in photos(options.images, fail):
        try:
            image = load_image(path, model.input_shape[1])
        except UsageError as error:
            fail(error)
            continue
        probabilities = model.predict(*prep_pixels(image[None]), verbose=0)[0]
        require_probabilities(probabilities, options.model)
        likeliest = probabilities.argsort()[::-1][: options.top]
        shown = DEER.name if path == DEER else printable(str(path))
        if options.json:
            by_name = dict(zip(class_names, map(float, probabilities), strict=True))
            best = int(likeliest[0])
            print(json.dumps({"image": shown, "class": best, "name": class_names[best],
                              "probabilities": by_name}), flush=True)  # fmt: skip
        else:
            guesses = ", ".join(
                f"{class_names[i]} {100 * probabilities[i]:.1f} %" for i in likeliest
            )
            print(f"{shown}: {likeliest[0]} {class_names[likeliest[0]]} ({guesses})")
        if options.save:
            picture = picture_of(path, "predict", options.save, pictures)
            pictures.add(picture)
            try:
                with blame(picture):
                    photo = load_whole(path, PHOTO_SIZE)
                    draw(photo, image, probabilities, class_names, shown, picture)
            except UsageError as error:
                fail(error)
                continue
            print(f"Picture: {picture}", file=sys.stderr if options.json else sys.stdout)
    return 2 if failed else 0


def photos(paths, fail):
    """Return the photos that are named, and those anywhere in the folders that are, but hidden.

    Args:
        paths: of files and folders.
        fail: function that is told why, for each folder that can't be looked into.
    """
    found = []
    for path in map(Path, paths):
        if not os.path.isdir(path):
            found.append(path)
            continue
        closed = []
        inside = [Path(place, name) for place, _, names in walk(path, onerror=closed.append)
                  for name in names]  # fmt: skip
        for error in closed:
            fail(f"{error.filename}: {error.strerror}")
        if not inside and not closed:
            fail(f"there are no photos in {path}")
        found += sorted(inside)
    return found


def draw(photo, image, probabilities, class_names, title, path):
    """Draw a photo, what the model sees of it, and the ten likeliest classes at most.

    Args:
        photo: a Pillow image.
        image: uint8 (size, size, 3).
        probabilities: float (classes,).
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained")
    figure.suptitle(title, wrap=True)
    left.imshow(photo)
    left.set_title("the photo", fontsize="medium")
    middle.imshow(image)
    middle.set_title(f"what the model sees: {len(image)}x{len(image)} pixels", fontsize="medium")
    for axes in (left, middle):
        axes.axis("off")
    order = probabilities.argsort()[-10:]
    bars = right.barh([class_names[i] for i in order], 100 * probabilities[order])
    right.bar_label(bars, fmt="%.1f", padding=3)
    right.set(xlim=(0, 125), xticks=range(0, 101, 20), xlabel="probability (%)")
    save_figure(figure, path)


if __name__ == "__main__":
    with readable_errors():
        sys.exit(main())
