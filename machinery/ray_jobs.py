"""Runs in a Ray cluster: each a task that states its need, whose files come back after each epoch.

The nodes need not share a file system, with each other or with the machine that asks. A task gets
the project's code and the run's files, works in a temporary folder, and sends back what changes.
What each node must have: the packages of requirements.txt, Ray in the asking machine's version, and
CIFAR-10, as a download of its own or, with --data, a file at the same path everywhere.

Ray could repeat a lost task, but only with the files that it began with. So run_all.py starts a new
one, as it does when a process was killed: it gets the files that came back last.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from machinery.environment import usable_cores
from machinery.errors import UsageError, first_line
from machinery.files import replace_when_complete
from machinery.lock import only_owner
from machinery.options import ROOT
from machinery.records import RunFiles, archive_earlier_run, find_earlier_run

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_CONNECT = 5
SECONDS_TO_FETCH = 120

# What a run needs of the project. Data sets, environments and results beside it can be large.
CODE = {"harness.py", "data", "experiments", "extensions", "machinery", "models"}

# Ray only counts CPUs: the other runs on a node get the rest if TensorFlow starts no more threads.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@contextlib.contextmanager
def cluster(address, jobs):
    """Yield the places that a cluster has for runs, a list of `Share`.

    Args:
        address: the cluster's, `HOST:PORT`; "local" starts one on this machine, for as long
            as the block takes.
        jobs: how many runs share a node's cores.

    Raises:
        UsageError: if there is no such cluster, or it has no room.
    """
    connect(address)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        need, places = divide(nodes, jobs)
        yield [Share(need)] * places
    finally:
        ray.shutdown()  # which ends the tasks that are left, too


def connect(address):
    """Connect to a cluster, see `cluster`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    others = [f"/{path.name}" for path in ROOT.iterdir() if path.name not in CODE]
    options = {
        "runtime_env": {"working_dir": str(ROOT), "excludes": others},
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if address == "local":
        # Its processes have a copy of the project, and would take our settings for the user's.
        os.environ["KERAS_HOME"] = os.environ["USERS_KERAS_HOME"]
        options |= {"num_cpus": usable_cores(), "include_dashboard": False}
    else:
        host, _, port = address.rpartition(":")
        try:  # Ray would try for two minutes, and then end this process
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        except OSError as error:
            raise UsageError(
                f"there is no Ray cluster at {address} ({error}): `ray start --head` starts one, "
                "and says where"
            ) from error
    try:
        ray.init(address, **options)
    except Exception as error:  # which is just what Ray raises if it starts too slowly
        reason = " ".join(str(error).split())
        raise UsageError(f"Ray does not start, or not connect: {reason}") from error


def divide(nodes, jobs):
    """Return what a run needs, as options of a Ray task, and how many runs have room at once.

    A run needs as many CPUs as the smallest node has for each of its jobs, and a GPU if any node
    has one.

    Args:
        nodes: the resources of each, a list of dicts.
        jobs: how many runs share a node's CPUs.

    Raises:
        UsageError: if there is no room for any.
    """
    gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
    if not nodes:
        raise UsageError(f"no node of the Ray cluster has a CPU{' beside its GPU' * gpus}")
    cpus = max(1, int(min(node["CPU"] for node in nodes)) // jobs)
    places = [int(node["CPU"]) // cpus for node in nodes]
    if gpus:
        places = [min(room, int(node["GPU"])) for room, node in zip(places, nodes, strict=True)]
    return {"num_cpus": cpus, "num_gpus": gpus}, sum(places)


class Share:
    """A place for one run in the cluster. Ray decides on which node.

    Args:
        need: what the run needs, as options of a Ray task.
    """

    def __init__(self, need):
        self.need = need

    def start(self, job, words):
        """Start a `run_all.Job`; return what can be asked for its end, as `subprocess.Popen`.

        Args:
            job: the job.
            words: the script's path from the project's folder, and its options.
        """
        return Task(job, words, self.need)


class Task:
    """A run that Ray has. To `run_all.run_jobs`, it is a process; a lost one was killed.

    Nobody else may have the run's files on this machine until it ends.

    Attributes:
        returncode: None as long as it is running.
    """

    def __init__(self, job, words, need):
        self.job, self.files, self.returncode = job, job.files, None
        self.ownership = contextlib.ExitStack()
        self.is_new = "--resume" not in words
        try:
            self.ownership.enter_context(only_owner(self.files.lock, self.files.result))
            self.earlier = find_earlier_run(self.files, job.run.settings, not self.is_new)
        except UsageError as error:
            self.end(2, f"{error}\n")
            return
        contents = None if self.is_new else pack(self.files)
        words = [*words, *same_on_every_node(job.run.options)]
        # Not a decorator: Ray would send such a function with this machine's paths in it. As it is,
        # the node imports its own copy.
        task = ray.remote(max_retries=0, **need)(run_on_node)
        self.reports = task.remote(job.name, job.seed, job.fold, words, contents, need["num_cpus"])
        # A report that was on its way when its node died never comes, nor fails: the end does both.
        self.news = [self.reports, self.reports.completed()]

    def poll(self):
        """Take in what came back; return the exit code, or None."""
        while self.returncode is None and ray.wait(self.news, timeout=0)[0]:
            try:
                code, output, contents = ray.get(next(self.reports), timeout=SECONDS_TO_FETCH)
            except (RayTaskError, RuntimeEnvSetupError) as error:  # every other try would fail, too
                self.end(1, f"{error}\n")
            except RayError as error:
                self.end(-signal.SIGKILL, f"Lost: {type(error).__name__}: {first_line(error)}\n")
            else:
                self.take_in(contents)
                self.log(output)
                if code == 0:
                    self.files.remove_checkpoints()
                if code is not None:
                    self.end(code)
        return self.returncode

    def terminate(self):
        """Take in what came back, and give the rest up."""
        if self.poll() is None:
            ray.cancel(self.reports, force=True)
            self.end(-signal.SIGTERM)

    def wait(self):
        """Return the exit code: `terminate` has waited already."""
        return self.returncode

    def take_in(self, contents):
        """Put the run's files where they belong; an earlier run's are archived first.

        Args:
            contents: what `pack` returned: None before the run has found its images. Until then, it
                may still fail, and leaves the earlier run alone.
        """
        if contents is None:
            return
        if self.is_new:
            archive_earlier_run(self.earlier, self.files)
            self.is_new = False
        unpack(contents, self.files)

    def log(self, output):
        with open(self.job.log, "a") as log:
            log.write(output)

    def end(self, code, output=""):
        self.log(output)
        self.returncode = code
        self.ownership.close()


def same_on_every_node(options):
    """Return those options in words whose defaults differ from machine to machine."""
    words = ["--mixed-precision" if options.mixed_precision else "--no-mixed-precision"]
    data = options.data or os.environ.get("CIFAR10_PATH")
    if data and not options.sample:
        words += ["--data", os.path.abspath(os.path.expanduser(data))]
    return words


def pack(files):
    """Return what is in the files that a run can't make again, None if it has not begun.

    Args:
        files: a `RunFiles`.

    Returns:
        A list of bytes, with None in place of each file that is not there.
    """
    if not files.result.exists():
        return None
    # The run may be writing. The other way round than it does, we read no checkpoint whose epochs
    # are not in the history.
    contents = [content(path) for path in reversed(files.to_keep())]
    return contents[::-1]


def content(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def unpack(contents, files):
    """Write what `pack` returned, in the order in which a run writes it.

    A checkpoint that is not there stays: a run that is just saving the next one has none.
    """
    for path, data in zip(files.to_keep(), contents, strict=True):
        if data is not None:
            with replace_when_complete(path) as temporary:
                temporary.write_bytes(data)


def run_on_node(name, seed, fold, words, contents, cpus):
    """Run an experiment's script on a node, in a process of its own.

    Args:
        name, seed, fold: the run's, see `RunFiles.of`.
        words: the script's path from the project's folder, and its options.
        contents: the run's files, as `pack` returned them; None for a new run.
        cpus: how many of the node's CPUs it may keep busy.

    Yields:
        `(code, output, contents)` after each epoch and at the end: the process's exit code, None
        before it ends; what it has printed since; the run's files.
    """
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder, contextlib.ExitStack() as stack:
        files = RunFiles.of(folder, name, seed, fold)
        files.result.parent.mkdir(parents=True, exist_ok=True)
        if contents:
            unpack(contents, files)
        words = [sys.executable, str(ROOT / words[0]), *words[1:], "--out", folder]
        log = Path(folder) / "log"
        process = subprocess.Popen(
            words, cwd=folder, preexec_fn=die_with_parent,
            env={**os.environ, **dict.fromkeys(THREADS, str(cpus))},
            stdin=subprocess.DEVNULL, stdout=stack.enter_context(open(log, "wb")),
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        stack.callback(process.kill)
        printed = stack.enter_context(open(log, errors="replace"))
        output = f"Process {process.pid} on {socket.gethostname()}: {shlex.join(words)}\n"
        code, sent = None, times(files)
        while code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(SECONDS_BETWEEN_LOOKS)
            now = times(files)
            if now != sent or code is not None:
                sent = now
                yield code, output + printed.read(), pack(files)
                output = ""


def times(files):
    """Return when the files were written that a run writes last: when it begins, in each epoch."""
    found = []
    for path in (files.result, files.checkpoint):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_mtime_ns)
    return found


def die_with_parent():
    """Let Linux end this process when a worker of Ray dies that has started it, however it dies."""
    if hasattr(LIBC, "prctl"):
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
