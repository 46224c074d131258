"""Evaluate the final model on the test images: its top-1 accuracy in percent, and its mistakes.

It prints the accuracy for each class and draws three pictures: which classes are taken for which,
the mistakes that the model was surest of, and how far its probabilities can be trusted. Of a model
that was trained with --validation holdout, they are also drawn as they would be with the
temperature that fits those images.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this copy of the project

from data.batches import Batches
from data.dataset import CLASS_NAMES
from data.download import find_dataset
from data.splits import hold_out
from harness import load_dataset, prep_pixels
from machinery.diagnosis import (
    calibration,
    draw_confusion,
    draw_mistakes,
    draw_reliability,
    fit_temperature,
    with_temperature,
)
from machinery.errors import UsageError, readable_errors
from machinery.final_model import (
    listed,
    load_final_model,
    prediction,
    require_probabilities,
)
from machinery.intervals import share_interval_95
from machinery.options import (
    add_data,
    add_model,
    add_out,
    own_data,
    parse_options,
    script_parser,
)
from machinery.records import (
    accuracy_line,
    join_remarks,
    remark_on_data,
    stopped_early,
    without_accuracy,
)


def main():
    parser = script_parser()
    add_data(parser)
    add_model(parser)
    add_out(parser)
    options = parse_options(parser)

    model, training = load_final_model(options.model)
    if reason := without_accuracy(training["settings"]):
        raise UsageError(f"{options.model} was {reason}")
    size, class_names = model.input_shape[1], training["dataset"]["class_names"]
    other_images = UsageError(
        f"{options.model} tells {listed(class_names)} apart, in images of {size}x{size} pixels: "
        "name such images with --data"
    )
    own = own_data(options)
    if not own and (class_names != list(CLASS_NAMES) or size != 32):
        raise other_images  # rather than to download CIFAR-10
    dataset = find_dataset(options.data, options.sample, size if own else None)
    if list(dataset.class_names) != class_names or dataset.image_size() != size:
        raise other_images
    same_images = training["dataset"].get("sha256") == dataset.sha256
    if own and not same_images and not dataset.is_cifar10():
        print("Warning: these are not the very images that the model was trained with. Where it is "
              "tested on some of those, the accuracy is too good.")  # fmt: skip
    trainX, trainY, testX, testY = load_dataset(dataset)

    def predict(images, labels):
        return model.predict(
            Batches(images, labels, 64, prep_pixels),
            verbose=1 if sys.stdout.isatty() else 2,  # a log file gets a line, no bar
        )

    probabilities, labels = predict(testX, testY), testY.argmax(axis=1)
    require_probabilities(probabilities, options.model)
    predictions = probabilities.argmax(axis=1)
    right = predictions == labels
    trained = training["remark"] and f"trained {training['remark']}"
    tested = remark_on_data(dataset, options) and f"tested {remark_on_data(dataset, options)}"
    remarks = join_remarks(trained, stopped_early(training), tested)
    print(accuracy_line(100 * right.mean(), remarks))
    width = max(map(len, class_names))
    for label, name in enumerate(class_names):
        of_class = right[labels == label]
        least, most = share_interval_95(of_class.sum(), len(of_class))
        print(
            f"  {name:{width}}  {100 * of_class.mean():5.1f} %  (95 % interval: {100 * least:.1f} "
            f"to {100 * most:.1f} %)"
        )

    curves = {"the model": calibration(probabilities, labels)}
    settings = training["settings"]
    if settings["validation"] == "holdout" and same_images and not settings.get("limit"):
        _, (heldX, heldY) = hold_out(trainX, trainY)
        temperature = fit_temperature(predict(heldX, heldY), heldY.argmax(axis=1))
        scaled = with_temperature(probabilities, temperature)
        curves[f"with temperature {temperature:.2f}"] = calibration(scaled, labels)

    out = Path(options.out)
    title = f"{settings['experiment']}: test accuracy {100 * right.mean():.2f} %\n{remarks}".strip()
    paths = [out / f"evaluate_{name}.png" for name in ("confusion", "mistakes", "reliability")]
    draw_confusion(labels, predictions, class_names, title, paths[0])
    draw_mistakes(testX, labels, probabilities, class_names, title, paths[1])
    draw_reliability(curves, title, paths[2])
    for path in paths:
        print(f"Picture: {path}")
    if suggested := prediction(options, class_names):
        print(f"Next: {suggested}")


if __name__ == "__main__":
    with readable_errors():
        main()
