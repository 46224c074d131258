"""Train the final model on all training images and save it to final_model.h5.

By default the model of baseline3, as in the tutorial; --experiment takes any other. When you have
chosen, --all-images trains it on the test images too, as one does with a model for use: more images
make a better network. But nothing is left to measure how good it is: any image that could tell has
been trained on, and would be recognized because it is remembered. Take the accuracy of the same
model without --all-images as a cautious estimate.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this copy of the project

from experiments import FINAL, load_experiment
from harness import run_experiment
from machinery.errors import UsageError, readable_errors
from machinery.files import reading
from machinery.final_model import (
    EARLIER,
    MOST_BYTES,
    keep_earlier_model,
    prediction,
    read_training,
    save_final_model,
)
from machinery.lock import only_owner
from machinery.options import (
    FINAL_MODEL,
    command,
    option_parser,
    parse_options,
    path_of,
    writable_folder,
)
from machinery.records import RunFiles, read_result

# What it is called for a moment, and among the earlier ones, is up to 30 bytes longer.
MOST_NAME_BYTES = 220


def main():
    parser = option_parser("as the experiment")
    parser.add_argument("--experiment", choices=FINAL, default="baseline3", metavar="NAME",
        help=f"whose model: {', '.join(FINAL)} (%(default)s)")  # fmt: skip
    parser.add_argument("--all-images", action="store_true",
        help="train on the training and the test images; no accuracy is measured")  # fmt: skip
    parser.add_argument("--model", type=path_of, metavar="FILE",
        help=f"where to save the model, .h5 or .keras ({FINAL_MODEL})")  # fmt: skip
    parser.add_argument("--format", choices=("h5", "keras"),
        help="of the file: the tutorial's, or Keras's newer one (h5)")  # fmt: skip
    options = parse_options(parser)
    if options.fold:
        parser.error("--fold is for single experiments: the final model is trained on all images")
    options.model = options.model or str(
        Path(FINAL_MODEL).with_suffix(f".{options.format or 'h5'}")
    )
    model_path = Path(options.model)
    allowed = [f".{options.format}"] if options.format else [".h5", ".keras"]
    if model_path.suffix not in allowed:
        parser.error(f"argument --model: {model_path} must end in {' or '.join(allowed)}")
    if len(os.fsencode(model_path.name)) > MOST_NAME_BYTES:
        parser.error(f"argument --model: a name of at most {MOST_NAME_BYTES} bytes, please")
    files = RunFiles.of(options.out, "final_model", options.seed)
    if model_path.resolve() in [path.resolve() for path in files]:
        parser.error(f"argument --model: the run keeps something else in {model_path}")
    writable_folder(parser, "--model", model_path.parent)
    if model_path.exists():
        writable_folder(parser, "--model", model_path.parent / EARLIER)
        with reading(model_path, MOST_BYTES):  # so that it can be kept
            pass

    experiment = load_experiment(options.experiment)
    experiment = experiment._replace(test_time_augmentation=None)  # test what is saved
    if options.all_images and "holdout" in (options.validation, experiment.validation):
        parser.error("--all-images trains on all images, but --validation holdout, or "
                     f"{options.experiment} by itself, holds some of them out")  # fmt: skip

    def save_model(model, result):
        if model_path.exists():
            print(f"Earlier model:   {keep_earlier_model(model_path)}")
        save_final_model(model, result, model_path)
        print(f"Model:           {model_path}")

    with only_owner(model_path.with_name(f"{model_path.name}.lock"), model_path):
        run_experiment(options.experiment, experiment, options, "final_model", save_model)
        run = read_result(files.result)
        # --resume, of a run that was finished, saves no model
        if not model_path.exists() or read_training(model_path)["started"] != run["started"]:
            raise UsageError(
                f"the run is finished, but its model is not in {model_path}: name the file that it "
                "is in, or start without --resume to train it again"
            )
    if not options.all_images:
        print(f"Next:            {command('evaluate.py', options)}")
    if suggested := prediction(options, run["dataset"]["class_names"]):
        print(f"Then:            {suggested}")


if __name__ == "__main__":
    with readable_errors():
        main()
