"""Compare runs: a table of their accuracies, and pictures of all their learning curves.

Runs that differ in nothing but the seed are taken together, and so are the folds of a
cross-validation: the table has their mean, their standard deviation, and how far the mean may be
from the truth. The pictures draw them in one colour; three and more as their mean, with a band of
one standard deviation around it.

    python compare.py                         what is in runs/
    python compare.py --against baseline3     and how much better or worse it is than baseline3
"""

import os
import re
import shlex
import sys
from argparse import Namespace
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this copy of the project

from data.dataset import CIFAR10_SHA256
from data.download import NOT_OFFICIAL
from data.splits import Fold
from experiments import ALL, origin_of
from machinery.curves import draw_accuracy, draw_loss, draw_time
from machinery.errors import UsageError, printable, readable_errors
from machinery.files import blame
from machinery.intervals import half_width_95
from machinery.options import (
    RUNS,
    add_out,
    command,
    option_parser,
    option_words,
    parse_options,
    path_of,
    script_parser,
    words_of,
)
from machinery.records import (
    evaluated_on,
    join_remarks,
    read_history,
    read_result,
    require_columns,
    span,
    stopped_early,
    without_accuracy,
)
from machinery.run import Run

SHARED_BY_A_PAIR = "seed", "fold", "epochs", "sample", "limit", "mixed_precision"


class Row(NamedTuple):
    """Runs that differ in nothing but the seed or the fold: a row of the table, one colour.

    Fields:
        name: of their files, after that of their folder if several folders are compared.
        results, histories: what the NAME.json and NAME.csv of each run say.
    """

    name: str
    results: list
    histories: list

    @property
    def label(self):
        count = len(self.results)
        if self.folds:
            done = f"{count}" if count == self.folds else f"{count} of {self.folds}"
            return f"{self.name} ({done} folds)"
        return self.name + (f" ({count} seeds)" if count > 1 else "")

    @property
    def settings(self):
        return self.results[0]["settings"]

    @property
    def folds(self):
        """How many folds the cross-validation has, None if it is none."""
        return Fold.parse(self.settings["fold"]).count if "fold" in self.settings else None

    def accuracies(self):
        """Return the accuracy at the end of each finished run in percent.

        That on the test images, or of folds, on the images that each of them holds out. A
        dictionary, by what two runs must share if their accuracies are to be compared.
        """
        found = {}
        for result in self.results:
            accuracy = result.get("fold_accuracy") if self.folds else result["test_accuracy"]
            if result["finished"] and accuracy is not None:
                shared = [result["settings"].get(setting) for setting in SHARED_BY_A_PAIR]
                found[(*shared, images_of(result))] = accuracy
        return found

    def measured(self):
        """Return the mean accuracy, the standard deviation, and half the 95 % interval of the mean.

        None for what needs more finished runs than there are.
        """
        found = list(self.accuracies().values())
        deviation = stdev(found) if len(found) > 1 else None
        return mean(found) if found else None, deviation, half_width_95(found, self.folds)

    def against(self, reference):
        """Say how much higher the accuracies are than those of another row, in pairs of runs."""
        if self is reference:
            return "-"
        others = reference.accuracies()
        accuracies = self.accuracies()
        pairs = [accuracies[shared] - others[shared] for shared in accuracies if shared in others]
        if not pairs:
            return "no pair"
        half_width = half_width_95(pairs, self.folds)
        if half_width is None:
            return f"{mean(pairs):+.2f} (one pair)"
        noise = " (within noise)" if abs(mean(pairs)) <= half_width else ""
        return f"{mean(pairs):+.2f} ± {half_width:.2f}{noise}"

    def epochs_trained(self):
        """Return how many epochs each run has done."""
        return [len(history["epoch"]) for history in self.histories]

    def remark(self):
        """Say why these should not be compared with other runs, "" if nothing speaks against it."""
        result = self.results[0]
        unfinished = "" if result["finished"] else "unfinished, go on with --resume"
        held_out = "on the folds held out, not on the test images" if self.folds else ""
        return join_remarks(
            held_out,
            unfinished,
            result["remark"],
            stopped_early(*self.results),
            without_accuracy(self.settings),
        )


def read_runs(folders):
    """Return the runs in the folders as a list of `Row`.

    They come in the tutorial's order, and after them all others.

    Raises:
        UsageError: if a folder is missing, or none of them holds a run.
    """
    paths = {}  # by where they really are: a folder may be in one that is named, too
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}")
        for path in sorted(results_in(folder)):
            paths.setdefault(os.path.realpath(path), path)
    alike = {}
    for path in paths.values():
        try:
            with blame(path):
                result = read_result(path)
                if not result:
                    raise UsageError(f"{path}: there is no such file")
                trained = result.get("epochs_trained", result["settings"]["epochs"])
                epochs = trained if result["finished"] else None  # as many as there are
                history = read_history(path.with_suffix(".csv"), epochs)
                require_columns(result["settings"], history)
        except UsageError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        settings = dict(result["settings"])
        if "fold" in settings:
            settings["fold"] = Fold.parse(settings["fold"]).count
        else:
            settings["seed"] = None
        key = path.stem, str(settings), images_of(result), not result["finished"]
        alike.setdefault(key, []).append((path, result, history))
    if not alike:
        out = [] if folders[0] == RUNS else option_words("out", folders[0])
        raise UsageError(
            f"no runs in {', '.join(map(str, folders))}: "
            f"`{command('experiments/baseline1.py')} {shlex.join(['--sample', *out])}` makes one"
        )
    rows = []
    for runs in alike.values():
        all_settings = [result["settings"] for _, result, _ in runs]
        different = {(settings["seed"], settings.get("fold")) for settings in all_settings}
        for together in [runs] if len(different) == len(runs) else [[run] for run in runs]:
            name = printable(together[0][0].stem)
            if len(folders) > 1:
                parents = [path.parent.resolve() for path, _, _ in together]
                name = f"{printable(Path(os.path.commonpath(parents)).name)}/{name}"
            _, results, histories = zip(*together, strict=True)
            rows.append(Row(name, list(results), list(histories)))

    def place_in_tutorial(row):
        name = row.settings["experiment"]
        return ALL.index(name) if name in ALL else len(ALL)

    return sorted(rows, key=place_in_tutorial)


def images_of(result):
    """Return what tells the images of a run from others, a text."""
    return f"{result['remark']} {result['dataset'].get('sha256')}"


def results_in(folder):
    """Return the NAME.json in a folder, and in those that it has for seeds and folds."""
    found = []
    inner = (each for place in ("seed_*", "fold_*", "seed_*/fold_*") for each in folder.glob(place))
    for place in (folder, *inner):
        try:
            with blame(place):
                names = os.listdir(place) if place.is_dir() else []
        except UsageError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        found += [place / name for name in names if re.fullmatch(r"[^.].*\.json", name)]
    return found


def percent(accuracy):
    return "-" if accuracy is None else f"{accuracy:.2f} %"


def find_row(rows, name):
    """Return the row of a name.

    Raises:
        UsageError: if there is none, or more than one.
    """
    found = [row for row in rows if row.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(row.name for row in rows))
        raise UsageError(f"--against {name}: there is no run of this name, but {names}")
    if len(found) > 1:
        raise UsageError(
            f"--against {name}: {len(found)} rows of the table have this name, of runs that differ "
            "in settings or images: move those that you do not mean to a folder of their own"
        )
    return found[0]


def print_table(rows, reference=None):
    """Print the table for the terminal.

    Args:
        rows: a list of `Row`.
        reference: one of them, with which the others are compared, or None.
    """
    width = max(len(row.label) for row in rows)
    against = f"{f'against {reference.name}':28}" if reference else ""
    print(f"{'':{width}}  published  measured   std   95 %  {against}   epochs      time   PFLOP")
    for row in rows:
        accuracy, *spread = row.measured()
        deviation, half_width = ("" if each is None else f"{each:.2f}" for each in spread)
        against = f"{row.against(reference):28}" if reference else ""
        planned, done = row.settings["epochs"], row.epochs_trained()
        epochs = span(done) + ("" if min(done) == planned else f" of {planned}")
        time = mean(sum(history.get("seconds", [])) for history in row.histories)
        minutes, seconds = divmod(round(time), 60)
        petaflops = [result.get("training_petaflop") for result in row.results]
        petaflop = f"{mean(petaflops):.4f}" if all(petaflops) else "-"
        published = percent(row.results[0]["published_accuracy"])
        print(
            f"{row.label:{width}}  {published:>9}  {percent(accuracy):>8}  {deviation:>4}  "
            f"{half_width:>5}  {against}{epochs:>9}  {minutes:4}:{seconds:02}  {petaflop:>6}  "
            f"{row.remark()}".rstrip()
        )
    print(
        "Published: by the tutorial; of a speed run: its target. Measured: accuracy on the test\n"
        "images at the end of the run (of folds, on the images that each holds out), the mean of\n"
        "several seeds or folds; std: their standard deviation; 95 %: the true mean is no further\n"
        "than this from it, with a confidence of 95 %."
    )
    if reference:
        print(
            f"Against {reference.name}: the mean difference, and what may be chance of it,\n"
            "of runs with the same seed, epochs, images and precision."
        )
    print(
        "Time: minutes:seconds, evaluations after each epoch included.\n"
        "PFLOP: the 10^15 multiplications and additions of convolutions and dense layers."
    )


def print_markdown(rows, reference=None):
    """Print the tables of README.md: what was measured, and the command that repeats it.

    Args:
        rows, reference: see `print_table`.
    """
    columns = {
        "script": "---", "what changed": "---", "epochs": "---:", "published": "---:",
        "measured": "---:", **({f"against {reference.name}": "---:"} if reference else {}),
        "n": "---:", "time per epoch": "---:", "precision": "---",
        "processor": "---", "to repeat it": "---",
    }  # fmt: skip
    print_cells(columns)
    print_cells(columns.values())
    for row in rows:
        words, idea, experiment = origin_of(row.settings["experiment"]) or (None, "-", None)
        epochs, usual = span(row.epochs_trained()), experiment.epochs if experiment else "?"
        if usual == "?" or max(row.epochs_trained()) <= usual:
            epochs += f" of {usual}"
        accuracy, _, half_width = row.measured()
        measured = f"{accuracy:.2f} ± {half_width:.2f} %" if half_width else percent(accuracy)
        if row.remark():
            measured += f" ({row.remark()})"
        seconds = {}  # on each of the processors that the runs had
        for result, history in zip(row.results, row.histories, strict=True):
            seconds.setdefault(processor(result), []).extend(history.get("seconds", []))
        print_cells([
            f"`{row.name}`",
            idea.removesuffix("."),
            epochs,
            percent(row.results[0]["published_accuracy"]),
            measured,
            *([row.against(reference)] if reference else []),
            f"{len(row.results)} of {row.folds} folds" if row.folds else len(row.results),
            "; ".join(f"{mean(times):.1f} s" if times else "-" for times in seconds.values()),
            {True: "bfloat16", False: "float32"}.get(row.settings.get("mixed_precision"), "-"),
            "; ".join(seconds),
            f"`{repeating_command(row, words, experiment)}`" if words else "-",
        ])  # fmt: skip


def print_cells(cells):
    print("|", " | ".join(str(cell).replace("|", "\\|") for cell in cells), "|")


def processor(result):
    """Return what a run was computed on."""
    hardware = {"processor": "-", "cores": "?", "gpus": []} | result.get("hardware", {})
    cores = f"{hardware['cores']} core{'' if hardware['cores'] == 1 else 's'}"
    return ", ".join([hardware["processor"], cores, *hardware["gpus"]])


def repeating_command(row, words, experiment):
    """Return the command that makes the runs of a row again, from the project's folder.

    Args:
        row: a `Row`.
        words: of the command without the settings.
        experiment: the `harness.Experiment`.
    """
    parser = option_parser(experiment.epochs)
    parser.set_defaults(mixed_precision=None)  # it depends on the processor: say it in any case
    data = row.results[0]["dataset"]
    images = sample = ["--sample"] if row.settings.get("sample") else []
    if not images and data.get("sha256", CIFAR10_SHA256) != CIFAR10_SHA256:
        images = option_words("data", data.get("source", "PATH").removesuffix(NOT_OFFICIAL))
        if data.get("image_size", 32) != 32:
            images += option_words("image-size", data["image_size"])
    name = row.settings["experiment"]
    usual = Run(name, name, experiment, parser.parse_args(sample)).settings
    special = {
        setting: row.settings.get(setting)
        for setting in usual
        if setting != "seed" and row.settings.get(setting) != usual[setting]
    }
    if row.settings.get("all_images"):
        words = ["finalize.py", "--experiment", name, "--all-images"]
    again = shlex.join(["python", *words, *images, *words_of(Namespace(**special), parser)])
    seeds = sorted(result["settings"]["seed"] for result in row.results)
    if len(seeds) > 1 and not row.folds:
        return f"for seed in {' '.join(map(str, seeds))}; do {again} --seed $seed; done"
    again += f" --seed {seeds[0]}" if seeds[0] else ""
    if row.folds:
        folds = sorted(Fold.parse(result["settings"]["fold"]).number for result in row.results)
        return f"for i in {' '.join(map(str, folds))}; do {again} --fold $i/{row.folds}; done"
    return again


def main():
    parser = script_parser("%(prog)s [options] [DIR ...]")
    parser.add_argument("folders", type=path_of, nargs="*", default=[RUNS],
        metavar="DIR",
        help=f"folders with runs ({RUNS})")  # fmt: skip
    parser.add_argument("--markdown", action="store_true",
        help="print the table as README.md has it, and draw nothing")  # fmt: skip
    parser.add_argument("--against", metavar="NAME",
        help="say of each run how far its accuracy is from that of the run NAME, in pairs of the "
        "same seed, epochs and images")  # fmt: skip
    add_out(parser)
    options = parse_options(parser)

    rows = read_runs(options.folders)
    reference = find_row(rows, options.against) if options.against is not None else None
    if options.markdown:
        print_markdown(rows, reference)
        return
    print_table(rows, reference)
    rows = [row for row in rows if evaluated_on(row.settings)]
    draw_accuracy(rows, Path(options.out) / "compare.png")
    draw_loss(rows, Path(options.out) / "compare_loss.png")
    draw_time(rows, Path(options.out) / "compare_time.png")


if __name__ == "__main__":
    with readable_errors():
        main()
