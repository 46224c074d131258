"""Run many experiments, each in a process of its own: by default the nine, shortest first.

    python run_all.py                                    all nine, two at once
    python run_all.py baseline1 dropout --seeds 0,1,2    three seeds of each
    python run_all.py baseline3 --folds 5                5-fold cross-validation
    python run_all.py --sample --jobs 1                  a try, one after the other
    python run_all.py --seeds 0,1,2 --ray HOST:6379      on the machines of a Ray cluster

Whatever ends it, the same command goes on: what is finished is skipped, what was interrupted is
resumed. Options that are not listed here, but that all experiments have, are passed on to them.
"""

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this copy of the project

import compare
from data.download import find_dataset
from data.splits import MOST_FOLDS, Fold, deal_into_folds
from experiments import ALL, EXPERIMENTS, TUTORIAL, origin_of
from experiments.speedrun import ABLATION
from extensions import FROM_SCRATCH
from harness import load_dataset
from machinery.callbacks import duration
from machinery.diagnosis import draw_doubtful_labels
from machinery.environment import pin_to, usable_cores
from machinery.errors import UsageError, readable_errors
from machinery.inspection import operations_per_image
from machinery.lock import owner_of
from machinery.options import (
    ROOT,
    command,
    option_parser,
    refuse_nonsense,
    require_tensorboard,
    script_parser,
    tensorboard_command,
    whole_number,
    words_of,
    writable_folder,
)
from machinery.records import read_history, read_predictions, read_result
from machinery.run import Run

import numpy as np

SECONDS_BETWEEN_REPORTS = 60
MOST_KILLS = 3  # a run that is killed so often without finishing an epoch is given up


class Job:
    """One run of one experiment, in a process of its own.

    Args:
        name: of the experiment.
        seed: of the run.
        fold: a `data.splits.Fold`, or None.
        arguments: options that are passed on, a list of words.
        sha256: the hashes of the images, as in `data.dataset.Dataset`.
    """

    def __init__(self, name, seed, fold, arguments, sha256):
        self.name, self.seed, self.fold, self.sha256 = name, seed, fold, sha256
        self.arguments = [*arguments, "--seed", str(seed)]
        self.arguments += ["--fold", str(fold)] if fold else []
        self.script, _, experiment = origin_of(name)
        options = option_parser(experiment.epochs).parse_args(self.arguments)
        self.run = Run(name, name, experiment, options)
        self.files = self.run.files
        self.log = self.files.result.with_suffix(".log")
        self.operations_per_image = operations_per_image(experiment.define_model())
        self.kills, self.failure = 0, None

    def __str__(self):
        seed = f", seed {self.seed}" if self.seed else ""
        fold = f", fold {self.fold}" if self.fold else ""
        return f"{self.name}{seed}{fold} ({len(self.epoch_seconds())} of {self.run.epochs} epochs)"

    def result(self):
        """Return what NAME.json says of a run with these very settings and images, {} if none."""
        try:
            result = read_result(self.files.result)
        except UsageError:  # a damaged file, which the experiment archives
            return {}
        this = self.run.settings, self.sha256
        found = result and (result["settings"], result["dataset"].get("sha256"))
        return result if found == this else {}

    def is_finished(self):
        return bool(self.result().get("finished"))

    def epoch_seconds(self):
        """Return how long each epoch took, so far; of a damaged NAME.csv, that none is done."""
        try:
            return read_history(self.files.history).get("seconds", []) if self.result() else []
        except UsageError:
            return []

    def start(self, place):
        """Start the process that a user would start, in a place such as `Cores`."""
        words = [*self.script, *self.arguments]
        words += ["--resume"] if self.result() else []
        self.place, self.epochs_before = place, len(self.epoch_seconds())
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.process = place.start(self, words)

    def note_end(self):
        """Take note of how the process ended: finished, killed and to be resumed, or failed."""
        code = self.process.returncode
        progress = len(self.epoch_seconds()) > self.epochs_before
        self.kills = 0 if progress else self.kills + 1
        if code > 0 or (code < 0 and self.kills >= MOST_KILLS):
            self.failure = f"exit code {code}, see {self.log}"
        elif code == 0 and not self.is_finished():
            self.failure = f"it ended with other images or settings than it should, see {self.log}"


class Cores:
    """A place for one process at a time: some of the processor's cores.

    Args:
        numbers: the cores' numbers; none where the system offers no choice.
    """

    def __init__(self, numbers):
        self.numbers = numbers

    def start(self, job, words):
        """Start the process of a job, and return it.

        Args:
            job: the `Job`; the process prints into its log.
            words: the script's path from the project's folder, and its options.
        """
        words = [sys.executable, str(ROOT / words[0]), *words[1:]]
        with open(job.log, "a", errors="backslashreplace") as log:
            print(shlex.join(words), file=log, flush=True)
            all_cores = pin_to(self.numbers)  # the new process inherits it
            try:
                return subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            finally:
                pin_to(all_cores)


@contextlib.contextmanager
def places(options):
    """Yield where the runs can run, a list: this processor's cores divided, or a Ray cluster's."""
    if options.ray is None:
        cores = sorted(pin_to() or [])
        yield [Cores(cores[slot :: options.jobs]) for slot in range(options.jobs)]
        return
    try:
        from machinery.ray_jobs import cluster
    except ModuleNotFoundError as error:  # an optional extra
        raise UsageError("--ray needs Ray: `pip install ray`, on every node") from error
    with cluster(options.ray, options.jobs) as shares:
        yield shares


def run_jobs(jobs, places):
    """Keep as many jobs running as there are places, until all have finished or failed.

    Args:
        jobs: a list of `Job`, in the order to start them.
        places: a list of `Cores`, or of `machinery.ray_jobs.Share`.
    """
    free, running, last_report = [*places], [], -SECONDS_BETWEEN_REPORTS
    try:
        while True:
            for job in [job for job in running if job.process.poll() is not None]:
                job.note_end()
                running.remove(job)
                free.append(job.place)
                last_report = -SECONDS_BETWEEN_REPORTS
            # A run may be finished before its process is.
            left = [job for job in jobs if job in running or not (job.failure or job.is_finished())]
            if not left:
                return
            for job in left:
                # Somebody else's process may have it: that of a run_all.py that was killed.
                if free and job not in running and owner_of(job.files.lock) is None:
                    try:
                        job.start(free[-1])
                    except OSError as error:  # its log can't be written
                        job.failure = f"{error.filename or job.log}: {error.strerror}"
                        continue
                    free.pop()
                    running.append(job)
                    last_report = -SECONDS_BETWEEN_REPORTS
            if time.monotonic() - last_report >= SECONDS_BETWEEN_REPORTS:
                report(jobs, left, running, len(places))
                last_report = time.monotonic()
            time.sleep(0.5)
    except KeyboardInterrupt:
        for job in running:
            job.process.terminate()  # Ctrl-C has reached those on this machine too, `kill` has not
        for job in running:
            job.process.wait()
        print("\nInterrupted. To go on, run the same command.", file=sys.stderr)
        raise


def report(jobs, left, running, slots):
    """Print in one line what is done, what is running, and how long the rest will take."""
    words = [f"{len(jobs) - len(left)} of {len(jobs)} done"]
    words.append(f"running: {', '.join(map(str, running)) or 'none'}")
    words.append(f"waiting: {len(left) - len(running)}")
    # From the epochs that are done, on the assumption that equal work takes equal time.
    seconds = sum(sum(job.epoch_seconds()) for job in jobs)
    work = sum(len(job.epoch_seconds()) * job.operations_per_image for job in jobs)
    if work:
        rest = sum(
            (job.run.epochs - len(job.epoch_seconds())) * job.operations_per_image for job in left
        )
        words.append(f"about {duration(rest * seconds / work / slots)} left")
    print("; ".join(words), flush=True)


def seed_list(text):
    """Parse `0,1,2`; a type for argparse."""
    return list(dict.fromkeys(whole_number(0, 2**32 - 1)(seed) for seed in text.split(",")))


def ray_address(text):
    """Check that it is `HOST:PORT` or `local`; a type for argparse."""
    host, _, port = text.rpartition(":")
    if text != "local" and (not host or "/" in host or not port.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither HOST:PORT nor local")
    return text


def parse_command_line():
    """Return the options of this script, and those for the experiments."""
    parser = script_parser("%(prog)s [options] [EXPERIMENT ...]")
    add = parser.add_argument
    add("experiments", nargs="*", default=TUTORIAL, metavar="EXPERIMENT",
        help=f"{', '.join(ALL)}; all stands for those of experiments/, "
        "extensions for those of extensions/ that need no weights of another network; ablation for "
        "the speed run with and without each of its ideas (the tutorial's nine)")  # fmt: skip
    add("--seeds", type=seed_list, default="0", metavar="N,N,...",
        help="a run for each of them (%(default)s)")  # fmt: skip
    add("--folds", type=whole_number(2, MOST_FOLDS), metavar="K",
        help="K-fold cross-validation: for each fold, 5 or 10 for example, a run that is trained "
        "on the other training images and evaluated on the fold")  # fmt: skip
    cores = usable_cores()
    # Two runs on half of the cores each train more images together, see benchmarks/README.md.
    add("--jobs", type=whole_number(1), default=min(2, cores), metavar="N",
        help="how many runs at once, on each machine, its cores divided among them "
        "(%(default)s)")  # fmt: skip
    add("--ray", nargs="?", const="local", type=ray_address, metavar="ADDRESS",
        help="run on the machines of a Ray cluster that this one belongs to, HOST:PORT; local, the "
        "default, starts one of this machine alone. Each machine needs the packages of "
        "requirements.txt, the same version of Ray (`pip install ray`), and CIFAR-10, which it "
        "downloads, or has at the path of --data. The runs' files come back here")  # fmt: skip
    if {"-h", "--help"} & set(sys.argv):
        parser.parse_args(["--help"])

    training_parser = option_parser("as published")
    training, others = training_parser.parse_known_args()
    if training.seed or training.fold or training.resume:
        parser.error(
            "--seed, --fold and --resume are options of single experiments: here they are --seeds "
            "and --folds"
        )
    options = parser.parse_args(others)
    if options.jobs > cores and not options.ray:
        parser.error(f"argument --jobs: {options.jobs} is above the {cores} cores")
    refuse_nonsense(parser, training)
    if options.folds and training.validation == "holdout":
        parser.error("--folds and --validation holdout exclude each other: both hold images out")
    groups = {"all": EXPERIMENTS, "extensions": FROM_SCRATCH, "ablation": ABLATION}
    names = [name for word in options.experiments for name in groups.get(word, [word])]
    options.experiments = list(dict.fromkeys(names))
    if unknown := [name for name in options.experiments if not origin_of(name)]:
        parser.error(f"there is no experiment {', '.join(sorted(unknown))}")
    if options.ray and training.tensorboard:
        parser.error("--tensorboard and --ray exclude each other: the logs would stay on the nodes")
    require_tensorboard(parser, training)
    options.out, options.tensorboard = training.out, training.tensorboard
    writable_folder(parser, "--out", options.out)
    return options, training


def draw_doubts(jobs, dataset, limit):
    """Draw the training images whose label the networks doubt most; return the picture's path.

    Args:
        jobs: the `Job` of each fold. Together, they have predictions of all training images, each
            by a network that was not trained on it.
        dataset, limit: see `harness.load_dataset`.
    """
    images, labels, *_ = load_dataset(dataset, limit)
    probabilities = np.empty_like(labels)
    labels = labels.argmax(axis=1)
    folds = deal_into_folds(labels, len(jobs))
    for job in jobs:
        of_fold = folds == job.fold.number
        shape = of_fold.sum(), len(dataset.class_names)
        probabilities[of_fold] = read_predictions(job.files.predictions, shape)
    title = f"{job.name}, {len(jobs)} folds\n{job.result()['remark']}".strip()
    path = job.files.result.parent.with_name(f"{job.name}_doubtful.png")
    draw_doubtful_labels(images, labels, probabilities, dataset.class_names, title, path)
    return path


def main():
    options, training = parse_command_line()
    arguments = words_of(training, option_parser("as published"))
    dataset = find_dataset(training.data, training.sample, training.image_size)
    folds = [None]
    if options.folds:
        folds = [Fold(number, options.folds) for number in range(1, options.folds + 1)]
    jobs = [
        Job(name, seed, fold, arguments, dataset.sha256)
        for seed, fold, name in product(options.seeds, folds, options.experiments)
    ]
    with places(options) as free:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        run_jobs(jobs, free)
    failures = [job for job in jobs if job.failure]
    for job in failures:
        print(f"run_all.py: error: {job}: {job.failure}", file=sys.stderr)
    compare.print_table(compare.read_runs([options.out]))
    if options.folds and not failures:
        for seed, name in product(options.seeds, options.experiments):
            of_folds = [job for job in jobs if (job.seed, job.name) == (seed, name)]
            print(f"Doubtful labels: {draw_doubts(of_folds, dataset, training.limit)}")
    if options.tensorboard:
        print(f"TensorBoard: {tensorboard_command(options.out)}")
    print(f"Next: {command('compare.py', options)}")
    return 2 if failures else 0


if __name__ == "__main__":
    with readable_errors():
        sys.exit(main())
