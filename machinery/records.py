"""What a run leaves behind, and reads back: its result and its history."""

import csv
import io
import itertools
import json
import math
import shutil
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from data.dataset import CLASS_NAMES
from data.splits import Fold
from machinery.errors import DamagedError, UsageError, printable
from machinery.files import (
    archive,
    read_array,
    reading,
    replace_when_complete,
)

MOST_BYTES = 10_000_000  # of a NAME.json or NAME.csv
MOST_CHARACTERS = 5_000  # of a text in it, a path for example
MOST_NUMBER = 1e15

# What the other scripts take for granted in a result, in `settings` and beside them.
RESULT_FORM = {
    "name": str,
    "test_accuracy": float | int | None,
    "published_accuracy": float | int | None,
    "remark": str,
    "settings": dict,
    "dataset": dict,
    "started": str,
    "finished": str | None,
}
SETTINGS_FORM = {"experiment": str, "epochs": int, "seed": int, "validation": str}
DATASET_FORM = {"source": str, "sha256": dict, "image_size": int}
# What the results of older versions or unfinished runs lack, and of which type it is where it is.
LATER_FORM = {
    "hardware": dict,
    "loss": str,
    "fold_accuracy": float | int,
    "training_petaflop": float | int | None,
    "epochs_trained": int,
}
LATER_SETTINGS_FORM = {
    "mixed_precision": bool,
    "sample": bool,
    "limit": int | None,
    "batch_size": int,
    "fold": str,
}
HARDWARE_FORM = {"processor": str, "cores": int, "gpus": list}

# The folder, in that of --out, of what TensorBoard shows beside each other.
TENSORBOARD = "tensorboard"

# The columns of a history.
COLUMNS = {"epoch", "train_loss", "train_accuracy", "seconds"}
TEST_OR_VALIDATION = {"test_loss", "test_accuracy"}, {"validation_loss", "validation_accuracy"}
NO_ACCURACY = "trained on the test images too, so none are left to measure its accuracy with"


class RunFiles(NamedTuple):
    """Where a run keeps its files, checkpoints and lock only until it is finished.

    Only a run of a fold leaves predictions: of the images that it was not trained on.
    """

    curves: Path
    history: Path
    result: Path
    predictions: Path
    checkpoint: Path
    checkpoint_before: Path
    lock: Path
    earlier: Path
    logs: Path

    @classmethod
    def of(cls, out, name, seed=0, fold=None):
        """Return the files of a run in a folder, in one of its own for each seed but 0, and fold.

        `compare.read_runs` looks there. TensorBoard's logs lie together, to be shown together.
        """
        place = Path(f"seed_{seed}" if seed else "")
        if fold:
            place /= f"fold_{fold.number}_of_{fold.count}"
        folder, logs = Path(out) / place, Path(out) / TENSORBOARD / place / name
        suffixes = (
            ".png", ".csv", ".json", ".predictions.npy",
            ".checkpoint.keras", ".checkpoint_before.keras", ".lock",
        )  # fmt: skip
        paths = (folder / f"{name}{suffix}" for suffix in suffixes)
        return cls(*paths, folder / "earlier", logs)

    def to_keep(self):
        """Return the files that a run can't make again."""
        return self.curves, self.history, self.result, self.predictions, *self.checkpoints()

    def checkpoints(self):
        """Return the newest checkpoint and the one before, whether they exist or not."""
        return self.checkpoint, self.checkpoint_before

    def remove_checkpoints(self):
        for path in self.checkpoints():
            path.unlink(missing_ok=True)


def find_earlier_run(files, settings, resume):
    """Return the result of the run whose files are there already, None if there is none.

    A damaged one is as good as none when a new run begins: it is archived.

    Raises:
        UsageError: if it is to be resumed but was started with other settings or never, or if it
            is unfinished, with an epoch done that would be lost, but not to be resumed.
    """
    try:
        earlier = read_result(files.result)
    except DamagedError as error:
        if not resume:
            return None
        raise UsageError(
            f"{error}: can't go on with it. Without --resume a new run begins, and the files of "
            f"this one are moved to {files.earlier}"
        ) from error
    if not resume:
        if earlier and not earlier["finished"] and any(map(Path.exists, files.checkpoints())):
            raise UsageError(
                f"{files.result} is a run that is not finished: go on with --resume, or choose "
                "another --out"
            )
        return earlier
    if not earlier:
        raise UsageError(f"nothing to resume, there is no {files.result}: start without --resume")
    if changes := needed_changes(earlier["settings"], settings):
        raise UsageError(f"{files.result} was started in another way: to go on, {changes}")
    return earlier


def needed_changes(before, now):
    """Return how to change the options to get the settings of an earlier run, "" if they agree."""
    changes = []
    for name in {**before, **now}:
        earlier, value, option = before.get(name), now.get(name), f"--{name.replace('_', '-')}"
        if earlier == value:
            continue
        if name == "experiment":
            changes.append(f"take the experiment {earlier}, not {value}")
        elif name == "mixed_precision":
            changes.append(f"add {option if earlier else '--no-mixed-precision'}")
        elif earlier in (None, False):
            changes.append(f"remove {option}")
        else:
            changes.append(f"add {option}" if earlier is True else f"add {option} {earlier}")
    return ", ".join(changes)


def archive_earlier_run(earlier, files):
    """Move whatever has the names of a run's files to OUT/earlier, dated.

    A run that was recorded but has no epoch done leaves nothing to keep.

    Args:
        earlier: the result of the run whose files they are, None if there is none, or none that
            can be read.
        files: a `RunFiles`.
    """
    is_finished = bool(earlier and earlier["finished"])
    if is_finished:  # a run that was killed while it finished leaves its checkpoints
        files.remove_checkpoints()
    kept = [path for path in files.to_keep() if path.exists()]
    if earlier and not is_finished and kept == [files.result]:
        shutil.rmtree(files.logs, ignore_errors=True)
        return
    kept += [files.logs] if files.logs.exists() else []
    if not kept:
        return
    if earlier:
        when = earlier["finished"] or earlier["started"]
    else:
        newest = max(path.stat().st_mtime for path in kept)
        when = datetime.fromtimestamp(newest).isoformat(timespec="seconds")
    print(f"There is a run of {when} already.", end=" ")
    archive(kept, when, files.earlier)


def accuracy_line(accuracy, *remarks):
    """Return the tutorial's line, `> 73.500`, and what is special about the number, if anything.

    Without an accuracy, None, it is `> none`.
    """
    told = join_remarks(*remarks)
    number = "none" if accuracy is None else f"{accuracy:.3f}"
    return f"> {number}" + (f" ({told})" if told else "")


def join_remarks(*remarks):
    """Return those of the remarks that say something as one text, "" if none does."""
    return "; ".join(remark for remark in remarks if remark)


def remark_on_data(dataset, options):
    """Return what a result must say about its images, "" if they are all of CIFAR-10."""
    images = "CIFAR-10" if dataset.is_cifar10() else "images that are not the official CIFAR-10"
    if dataset.class_names != CLASS_NAMES:
        size, classes = dataset.image_size(), len(dataset.class_names)
        images = f"{dataset.source}, {classes} classes, {size}x{size} pixels"
    if options.sample:
        images = "the sample of CIFAR-10"
    if getattr(options, "limit", None):
        images = f"{options.limit:,} training images of {images}"
    return "" if images == "CIFAR-10" else f"on {images}"


def evaluated_on(settings):
    """Return what a run with these settings evaluates after each epoch: "test" or "validation".

    None if it trains on all images.
    """
    if settings.get("all_images"):
        return None
    held_out = settings["validation"] == "holdout" or "fold" in settings
    return "validation" if held_out else "test"


def without_accuracy(settings):
    """Return why a run with these settings measures no accuracy, "" if it does."""
    return "" if evaluated_on(settings) else NO_ACCURACY


def stopped_early(*results):
    """Return that a callback ended runs of the same length before the last epoch, "" if none."""
    planned = results[0]["settings"]["epochs"]
    trained = [result.get("epochs_trained", planned) for result in results]
    if min(trained) == planned:
        return ""
    return f"stopped early, after {span(trained)} of {planned} epochs"


def span(numbers):
    """Return from where to where numbers go, `15 to 23`, or the number if all are the same."""
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"


def read_result(path):
    """Return what `write_result` wrote, None if there is no such file.

    Raises:
        UsageError: if it is damaged, or not the result of a run.
    """
    if not path.exists():
        return None
    with reading(path, MOST_BYTES) as file:
        result = json.load(file)
        require_result(result)
        return result


def require_result(result):
    """Raise ValueError unless it is the result of a run, with what the other scripts need."""
    require(result, RESULT_FORM)
    require_if_there(result, LATER_FORM)
    require(result["settings"], SETTINGS_FORM)
    require_if_there(result["settings"], LATER_SETTINGS_FORM)
    require_if_there(result["dataset"], DATASET_FORM)
    require_if_there(result.get("hardware", {}), HARDWARE_FORM)
    for gpu in result.get("hardware", {}).get("gpus", []):
        require({"gpu": gpu}, {"gpu": str})
    if "fold" in result["settings"]:
        Fold.parse(result["settings"]["fold"])
    for when in filter(None, (result["started"], result["finished"])):
        datetime.fromisoformat(when)  # it goes into names of files


def require_if_there(record, form):
    """Raise ValueError unless what a record has of the form is of the type that it says."""
    require(record, {name: form[name] for name in form.keys() & record.keys()})


def require(record, form):
    """Raise ValueError unless a record has what the form says, of the type that it says.

    A number has to be one that can be, see `require_possible`.
    """
    for name, kind in form.items():
        if not isinstance(record, dict) or name not in record:
            raise ValueError(f"not the result of a run: it has no {name}")
        value = record[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(
                f"not the result of a run: {name} is no {getattr(kind, '__name__', kind)}"
            )
        if isinstance(value, str) and len(value) > MOST_CHARACTERS:
            raise ValueError(f"not the result of a run: {name} is too long")
        if isinstance(value, str) and value != printable(value):
            raise ValueError(f"not the result of a run: {name} has control characters")
        if isinstance(value, int | float):
            require_possible(name, value)


def require_possible(name, number):
    """Raise ValueError unless a number is finite, an accuracy in percent, and only a loss below 0.

    Args:
        name: what it is, as JSON and CSV call it.
    """
    least = -MOST_NUMBER if name.endswith("loss") else 0
    if not least <= number <= (100 if name.endswith("accuracy") else MOST_NUMBER):
        raise ValueError(f"not of a run: {name} is {number}")


def write_result(path, result):
    with replace_when_complete(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")


def read_history(path, epochs=None):
    """Return the first `epochs` rows of a NAME.csv (all by default) as a list per column.

    Raises:
        UsageError: if it is damaged, or lacks some of the epochs.
    """
    history = {"epoch": []}
    if path.exists():
        with reading(path, MOST_BYTES) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
            columns = set(rows.fieldnames or ())
            if len(columns) < len(rows.fieldnames or ()):
                raise ValueError("not the history of a run: two columns have the same name")
            evaluations = columns & set().union(*TEST_OR_VALIDATION)  # none of --all-images
            complete = columns >= COLUMNS and evaluations in (set(), *TEST_OR_VALIDATION)
            if not complete and columns != {"epoch"}:  # which stands alone before the first epoch
                raise ValueError("not the history of a run: columns are missing")
            for row in itertools.islice(rows, epochs):
                if None in (*row, *row.values()):
                    raise ValueError("a row has more or fewer values than there are columns")
                for column, value in row.items():
                    number = int(value) if column == "epoch" else float(value)
                    require_possible(column, number)
                    history.setdefault(column, []).append(number)
            if history["epoch"] != list(range(1, len(history["epoch"]) + 1)):
                raise ValueError("its epochs are not 1, 2, 3 and so on")
    if epochs and len(history["epoch"]) < epochs:
        raise DamagedError(f"{path} lacks some of the {epochs} epochs that are done")
    return history


def require_columns(settings, history, exactly=False):
    """Raise ValueError unless a history has the evaluations that its run's settings ask for.

    Args:
        exactly: whether other columns than a run writes are refused, too: it could not go on.
    """
    split = evaluated_on(settings)
    evaluations = {f"{split}_loss", f"{split}_accuracy"} if split else set()
    if exactly and set(history) != COLUMNS | evaluations:
        raise ValueError("its columns are not those of this run")
    if history["epoch"] and split and f"{split}_accuracy" not in history:
        raise ValueError(f"its history has no {split}_accuracy")


def write_history(path, history):
    with replace_when_complete(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))


def read_predictions(path, shape):
    """Return the probabilities that a fold's run has saved: floats (n, classes) of this shape.

    Raises:
        UsageError: if there are none, or others.
    """
    if not path.exists():
        raise UsageError(
            f"{path} is missing: it is left by a single experiment with --fold, run it again"
        )
    with reading(path, 1000 + 8 * math.prod(shape)) as file:  # header and float64
        predictions = read_array(file)
        if predictions.shape != shape or predictions.dtype.kind != "f":
            raise ValueError(f"{predictions.dtype} {predictions.shape} instead of {shape}")
        return predictions
