"""Train the final model on all training images and save it to final_model.h5.

By default the model of baseline3, as in the tutorial; --experiment takes any other.
"""

import importlib
import shutil
from pathlib import Path

from harness import run_experiment
from options import (
    add_model,
    model_option,
    option_parser,
    parse_options,
    readable_errors,
    writable_folder,
)
from results import save_final_model

EXPERIMENTS = sorted(
    path.stem
    for path in Path(__file__).with_name("experiments").glob("*.py")
    if path.stem not in ("__init__", "explore_dataset")
)


def main():
    parser = option_parser("as the experiment")
    parser.add_argument("--experiment", choices=EXPERIMENTS, default="baseline3", metavar="NAME",
        help=f"whose model: {', '.join(EXPERIMENTS)} (%(default)s)")  # fmt: skip
    add_model(parser, "where to save the model")
    options = parse_options(parser)
    model_path = Path(options.model)
    if model_path.suffix != ".h5":
        parser.error(f"argument --model: {model_path} must end in .h5")
    writable_folder(parser, "--model", model_path.parent)

    experiment = importlib.import_module(f"experiments.{options.experiment}").EXPERIMENT
    experiment = experiment._replace(at_test_time=None)  # test the very model that is saved

    def save_model(model, result):
        if model_path.exists():
            earlier = model_path.with_name(f"{model_path.stem}.earlier.h5")
            shutil.copyfile(model_path, earlier)
            print(f"Earlier model:   {earlier}")
        save_final_model(model, result, model_path)
        print(f"Model:           {model_path}")

    run_experiment("final_model", options.experiment, experiment, options, save_model)
    other = model_option(options)
    print(f"Next:            python evaluate.py{other}; python predict.py{other}")


if __name__ == "__main__":
    with readable_errors():
        main()
