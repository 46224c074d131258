"""Make a model of this folder out of one that finalize.py saved: its weights in float16.

    python finalize.py --mixed-precision --model runs/baseline3.h5
    python pretrained/ship.py runs/baseline3.h5

A quarter of the size: numbers of half as many bytes, and no state of the optimizer. It computes in
float32, on any machine. Both models are tested on the test images; if their accuracies differ by
more than 0.05 %, nothing is written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.batches import Batches
from data.download import find_dataset
from harness import load_dataset, prep_pixels
from machinery.errors import UsageError, printable, readable_errors
from machinery.files import replace_when_complete
from machinery.final_model import load_final_model, save_final_model
from machinery.options import SHIPPED, add_data, add_out, parse_options, path_of, script_parser
from machinery.records import write_result

import h5py
import keras

LARGEST_DIFFERENCE = 0.05  # percent


def main():
    parser = script_parser("%(prog)s [options] MODEL")
    parser.add_argument("model", type=path_of, metavar="MODEL",
        help="what finalize.py saved, an .h5")  # fmt: skip
    add_data(parser)
    add_out(parser, SHIPPED)
    options = parse_options(parser)
    if Path(options.model).suffix != ".h5":
        parser.error(f"argument MODEL: {printable(options.model)} must end in .h5")

    _, _, *test = load_dataset(find_dataset(options.data, options.sample))
    path = Path(options.out, Path(options.model).name)
    with replace_when_complete(path) as temporary:
        model, result = load_final_model(options.model)
        accuracy = accuracy_of(model, *test)
        save_final_model(in_float32(model), result, temporary)
        halve(temporary)
        result["float16_test_accuracy"] = accuracy_of(load_final_model(temporary)[0], *test)
        difference = result["float16_test_accuracy"] - accuracy
        if abs(difference) > LARGEST_DIFFERENCE:
            raise UsageError(f"in float16, its accuracy differs by {difference:+.2f} %")
    write_result(path.with_suffix(".json"), result)
    print(f"Model: {path}, {path.stat().st_size / 1e6:.2f} MB")
    print(f"Test accuracy: {accuracy:.2f} %, in float16 {result['float16_test_accuracy']:.2f} %")


def accuracy_of(model, images, labels):
    """Return the accuracy in percent."""
    probabilities = model.predict(Batches(images, labels, 64, prep_pixels))
    return round(100 * float((probabilities.argmax(1) == labels.argmax(1)).mean()), 4)


def in_float32(model):
    """Return a copy that computes in float32: bfloat16 is slow where the processor has none."""

    def copy(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


def halve(path):
    """Rewrite an HDF5 file with all its numbers in float16: half the size, and dense already."""
    with (
        replace_when_complete(path) as temporary,
        h5py.File(path) as old,
        h5py.File(temporary, "w") as new,
    ):
        new.attrs.update(old.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                new.create_dataset(name, data=item[()].astype("float16"))
            else:
                new.create_group(name)
            new[name].attrs.update(item.attrs)

        old.visititems(copy)


if __name__ == "__main__":
    with readable_errors():
        main()
