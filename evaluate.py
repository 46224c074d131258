"""Evaluate the final model on the test images and print its top-1 accuracy in percent."""

import sys

from data.batches import Batches
from data.download import find_dataset
from harness import load_dataset, prep_pixels
from machinery.errors import UsageError, readable_errors
from machinery.final_model import load_final_model
from machinery.options import add_data, add_model, command, parse_options, script_parser
from machinery.records import accuracy_line, remark_on_data, stopped_early, without_accuracy


def main():
    parser = script_parser()
    add_data(parser)
    add_model(parser)
    options = parse_options(parser)

    model, training = load_final_model(options.model)
    if reason := without_accuracy(training["settings"]):
        raise UsageError(f"{options.model} was {reason}")
    size = model.input_shape[1]
    dataset = find_dataset(options.data, options.sample, size if options.data else None)
    class_names = training["dataset"]["class_names"]
    if list(dataset.class_names) != class_names or dataset.image_size() != size:
        raise UsageError(
            f"{options.model} tells {', '.join(class_names)} apart, in images of {size}x{size} "
            "pixels: name such images with --data"
        )
    _, _, testX, testY = load_dataset(dataset)

    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    _, accuracy = model.evaluate(
        Batches(testX, testY, 64, prep_pixels),
        verbose=1 if sys.stdout.isatty() else 2,  # a log file gets a line, no bar
    )
    trained = training["remark"] and f"trained {training['remark']}"
    tested = remark_on_data(dataset, options) and f"tested {remark_on_data(dataset, options)}"
    print(accuracy_line(100 * accuracy, trained, stopped_early(training), tested))
    print(f"Next: {command('predict.py', options)}")


if __name__ == "__main__":
    with readable_errors():
        main()
