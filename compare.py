"""Compare runs: a table of their accuracies, and pictures of all their learning curves.

Runs that differ in nothing but the seed are taken together: the table has their mean and standard
deviation. The pictures draw them in one colour; three and more as their mean, with a band of one
standard deviation around it.
"""

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from experiments import EXPERIMENTS, origin_of
from extensions import EXTENSIONS
from machinery.curves import draw_accuracy, draw_loss, draw_time
from machinery.errors import UsageError, readable_errors
from machinery.options import (
    RUNS,
    add_out,
    command,
    option_parser,
    parse_options,
    script_parser,
    words_of,
)
from machinery.records import join_remarks, read_history, read_result, stopped_early
from machinery.run import Run


class Row(NamedTuple):
    """Runs that differ in nothing but the seed: a row of the table, a colour in the pictures.

    Fields:
        name: of their files, after that of their folder if several folders are compared.
        results, histories: what the NAME.json and NAME.csv of each run say.
    """

    name: str
    results: list
    histories: list

    @property
    def label(self):
        return self.name + (f" ({len(self.results)} seeds)" if len(self.results) > 1 else "")

    @property
    def settings(self):
        return self.results[0]["settings"]

    @property
    def evaluated_on(self):
        """What was evaluated after each epoch: "validation" or "test" images."""
        return "validation" if self.settings["validation"] == "holdout" else "test"

    def measured(self):
        """Return the mean accuracy at the end in percent, and its standard deviation.

        None for an accuracy that is not known, as the runs are not finished, and for a standard
        deviation that needs more runs than one.
        """
        accuracies = [result["test_accuracy"] for result in self.results if result["finished"]]
        deviation = stdev(accuracies) if len(accuracies) > 1 else None
        return mean(accuracies) if accuracies else None, deviation

    def epochs_trained(self):
        return len(self.histories[0]["epoch"])

    def remark(self):
        """Say why these should not be compared with other runs, "" if nothing speaks against it."""
        result = self.results[0]
        unfinished = "" if result["finished"] else "unfinished, go on with --resume"
        return join_remarks(unfinished, result["remark"], stopped_early(result))


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
        for path in sorted([*folder.glob("*.json"), *folder.glob("seed_*/*.json")]):
            paths.setdefault(path.resolve(), path)
    alike = {}
    for path in paths.values():
        try:
            run = path, read_result(path), read_history(path.with_suffix(".csv"))
        except UsageError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        settings = {**run[1]["settings"], "seed": None}
        unfinished = not run[1]["finished"]
        key = path.stem, str(settings), run[1]["remark"], unfinished
        alike.setdefault(key, []).append(run)
    if not alike:
        raise UsageError(
            f"no runs in {', '.join(map(str, folders))}: "
            f"`{command('experiments/baseline1.py')} --sample` makes one"
        )
    rows = []
    for runs in alike.values():
        seeds = {result["settings"]["seed"] for _, result, _ in runs}
        for together in [runs] if len(seeds) == len(runs) else [[run] for run in runs]:
            name = together[0][0].stem
            if len(folders) > 1:
                parents = [path.parent.resolve() for path, _, _ in together]
                name = f"{Path(os.path.commonpath(parents)).name}/{name}"
            _, results, histories = zip(*together, strict=True)
            rows.append(Row(name, list(results), list(histories)))

    def place_in_tutorial(row):
        name, names = row.settings["experiment"], (*EXPERIMENTS, *EXTENSIONS)
        return names.index(name) if name in names else len(names)

    return sorted(rows, key=place_in_tutorial)


def percent(accuracy):
    return "-" if accuracy is None else f"{accuracy:.2f} %"


def print_table(rows):
    width = max(len(row.label) for row in rows)
    print(f"{'':{width}}  published  measured  +-       epochs      time   PFLOP")
    for row in rows:
        accuracy, deviation = row.measured()
        deviation = "" if deviation is None else f"{deviation:.2f}"
        planned, done = row.settings["epochs"], row.epochs_trained()
        epochs = f"{done}" if done == planned else f"{done} of {planned}"
        time = mean(sum(history.get("seconds", [])) for history in row.histories)
        minutes, seconds = divmod(round(time), 60)
        petaflop = row.results[0].get("training_petaflop")
        petaflop = f"{petaflop:.4f}" if petaflop else "-"
        published = percent(row.results[0]["published_accuracy"])
        print(
            f"{row.label:{width}}  {published:>9}  {percent(accuracy):>8}  "
            f"{deviation:4}  {epochs:>9}  {minutes:4}:{seconds:02}  {petaflop:>6}  "
            f"{row.remark()}".rstrip()
        )
    print(
        "Published: by the tutorial; of a speed run: its target. Measured: accuracy on the test\n"
        "images at the end of the run, the mean of several seeds +- their standard deviation.\n"
        "Time: minutes:seconds, evaluations after each epoch included.\n"
        "PFLOP: the 10^15 multiplications and additions of convolutions and dense layers."
    )


def print_markdown(rows):
    """Print the table of README.md: what was measured, and the command that repeats it."""
    columns = {
        "script": "---", "what changed": "---", "epochs": "---:", "published": "---:",
        "measured": "---:", "n": "---:", "time per epoch": "---:", "precision": "---",
        "processor": "---", "to repeat it": "---",
    }  # fmt: skip
    print_cells(columns)
    print_cells(columns.values())
    for row in rows:
        words, idea, experiment = origin_of(row.settings["experiment"]) or (None, "-", None)
        epochs = f"{row.epochs_trained()} of {experiment.epochs if experiment else '?'}"
        accuracy, deviation = row.measured()
        measured = percent(accuracy)
        if deviation is not None:
            measured = f"{accuracy:.2f} ± {deviation:.2f} %"
        if row.remark():
            measured += f" ({row.remark()})"
        seconds = [time for history in row.histories for time in history.get("seconds", [])]
        print_cells([
            f"`{row.name}`",
            idea.removesuffix("."),
            epochs,
            percent(row.results[0]["published_accuracy"]),
            measured,
            len(row.results),
            f"{mean(seconds):.1f} s" if seconds else "-",
            {True: "bfloat16", False: "float32"}.get(row.settings.get("mixed_precision"), "-"),
            "; ".join(dict.fromkeys(map(processor, row.results))),
            f"`{repeating_command(row, words, experiment)}`" if words else "-",
        ])  # fmt: skip


def print_cells(cells):
    print("|", " | ".join(str(cell).replace("|", "\\|") for cell in cells), "|")


def processor(result):
    """Return what a run was computed on."""
    hardware = {"processor": "-", "cores": "?", "gpus": []} | result.get("hardware", {})
    return ", ".join([hardware["processor"], f"{hardware['cores']} cores", *hardware["gpus"]])


def repeating_command(row, words, experiment):
    """Return the command that makes the runs of a row again, from the project's folder.

    Args:
        row: a `Row`.
        words: of the command without the settings.
        experiment: the `harness.Experiment`.
    """
    parser = option_parser(experiment.epochs)
    parser.set_defaults(mixed_precision=None)  # it depends on the processor: say it in any case
    sample = ["--sample"] if row.settings.get("sample") else []
    name = row.settings["experiment"]
    usual = Run(name, name, experiment, parser.parse_args(sample)).settings
    special = {
        setting: row.settings.get(setting)
        for setting in usual
        if setting != "seed" and row.settings.get(setting) != usual[setting]
    }
    words = ["python", *words, *sample, *words_of(Namespace(**special), parser)]
    seeds = sorted(result["settings"]["seed"] for result in row.results)
    if len(seeds) > 1:
        seeds = " ".join(map(str, seeds))
        return f"for seed in {seeds}; do {shlex.join(words)} --seed $seed; done"
    return shlex.join(words) + (f" --seed {seeds[0]}" if seeds[0] else "")


def main():
    parser = script_parser("%(prog)s [options] [DIR ...]")
    parser.add_argument("folders", type=os.path.expanduser, nargs="*", default=[RUNS],
        metavar="DIR",
        help=f"folders with runs ({RUNS})")  # fmt: skip
    parser.add_argument("--markdown", action="store_true",
        help="print the table as README.md has it, and draw nothing")  # fmt: skip
    add_out(parser)
    options = parse_options(parser)

    rows = read_runs(options.folders)
    if options.markdown:
        print_markdown(rows)
        return
    print_table(rows)
    draw_accuracy(rows, Path(options.out) / "compare.png")
    draw_loss(rows, Path(options.out) / "compare_loss.png")
    draw_time(rows, Path(options.out) / "compare_time.png")


if __name__ == "__main__":
    with readable_errors():
        main()
