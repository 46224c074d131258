"""What a run leaves behind, written all or nothing and read back: its result and its history."""

import contextlib
import csv
import json
import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from machinery.errors import UsageError


class RunFiles(NamedTuple):
    """Where a run keeps its files; checkpoint and lock are there only until the run is finished."""

    curves: Path
    history: Path
    result: Path
    checkpoint: Path
    lock: Path

    @classmethod
    def of(cls, out, name, seed=0):
        """Return the files of a run in a folder, in one of its own for each seed but 0."""
        folder = Path(out) / f"seed_{seed}" if seed else Path(out)
        suffixes = ".png", ".csv", ".json", ".checkpoint.keras", ".lock"
        return cls(*(folder / f"{name}{suffix}" for suffix in suffixes))


def find_earlier_run(files, settings, resume):
    """Return the result of the run whose files are there already, None if there is none.

    Raises:
        UsageError: if it is to be resumed but was started with other settings or never, or if it
            is unfinished, with an epoch done that would be lost, but not to be resumed.
    """
    earlier = read_result(files.result)
    if not resume:
        if earlier and not earlier["finished"] and files.checkpoint.exists():
            done = len(read_history(files.history)["epoch"])
            raise UsageError(
                f"{files.result} is a run that has finished {done} of "
                f"{earlier['settings']['epochs']} epochs: go on with --resume, or choose another "
                "--out"
            )
        return earlier
    if not earlier:
        raise UsageError(f"nothing to resume, there is no {files.result}: start without --resume")
    differences = [
        f"{name} was {earlier['settings'].get(name)}, not {value}"
        for name, value in settings.items()
        if earlier["settings"].get(name) != value
    ]
    if differences:
        raise UsageError(
            f"{files.result} was started with other settings: {'; '.join(differences)}"
        )
    return earlier


def archive_earlier_run(earlier, files):
    """Move whatever has the names of a run's files to OUT/earlier, dated.

    A run that was recorded but has no epoch done leaves nothing to keep.

    Args:
        earlier: the result of the run whose files they are, None if there is none.
    """
    kept = [path for path in (files.curves, files.history, files.checkpoint) if path.exists()]
    if not kept and (not earlier or not earlier["finished"]):
        return
    if earlier:
        kept.append(files.result)
        when = earlier["finished"] or earlier["started"]
    else:
        newest = max(path.stat().st_mtime for path in kept)
        when = datetime.fromtimestamp(newest).isoformat(timespec="seconds")
    folder = files.result.parent / "earlier"
    folder.mkdir(exist_ok=True)
    for path in kept:
        path.replace(folder / f"{path.stem}-{when.replace(':', '')}{path.suffix}")
    print(f"The run of {when} was moved to {folder}")


def remove_partial_files(files):
    """Remove what a killed run was just writing; see `replace_when_complete`."""
    for partial in files.result.parent.glob(f".{files.result.stem}.*"):
        partial.unlink()


def accuracy_line(accuracy, *remarks):
    """Return the tutorial's line, `> 73.500`, and what is special about the number, if anything."""
    told = join_remarks(*remarks)
    return f"> {accuracy:.3f}" + (f" ({told})" if told else "")


def join_remarks(*remarks):
    """Return those of the remarks that say something as one text, "" if none does."""
    return "; ".join(remark for remark in remarks if remark)


def remark_on_data(cifar10, options):
    """Return what a result must say about its images, "" if they are all of CIFAR-10."""
    images = "CIFAR-10" if cifar10.is_official() else "images that are not the official CIFAR-10"
    if options.sample:
        images = "the sample of CIFAR-10"
    if getattr(options, "limit", None):
        images = f"{options.limit:,} training images of {images}"
    return "" if images == "CIFAR-10" else f"on {images}"


def stopped_early(result):
    """Return that a callback ended the run before its last epoch, "" if none did."""
    trained, planned = result.get("epochs_trained"), result["settings"]["epochs"]
    if trained is None or trained == planned:
        return ""
    return f"stopped early, after {trained} of {planned} epochs"


def read_result(path):
    """Return what `write_result` wrote, None if there is no such file."""
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
        result["settings"]["epochs"], result["finished"]
        return result
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not the result of a run: move it away") from error


def write_result(path, result):
    with replace_when_complete(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")


def read_history(path, epochs=None):
    """Return the first `epochs` rows of a NAME.csv (all by default) as a list per column."""
    history = {"epoch": []}
    if path and path.exists():
        with open(path, newline="") as file:
            for row in list(csv.DictReader(file))[:epochs]:
                for column, value in row.items():
                    number = int(value) if column == "epoch" else float(value)
                    history.setdefault(column, []).append(number)
    if epochs and len(history["epoch"]) < epochs:
        raise UsageError(f"{path} lacks some of the {epochs} epochs that are done: can't resume")
    return history


def write_history(path, history):
    with replace_when_complete(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))


@contextlib.contextmanager
def replace_when_complete(path):
    """Yield a temporary path beside `path`; move it there if the block ends without an error.

    Whoever is killed in between, or loses its power, leaves the earlier file as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        synchronize(temporary)
        os.replace(temporary, path)
        synchronize(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def synchronize(path):
    """Wait until a file, or the list of files in a folder, is on the disk: power may fail."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
