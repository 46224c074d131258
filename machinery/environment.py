"""The process, made the same everywhere. Has to be imported before TensorFlow and Matplotlib.

The packages `data`, `machinery` and `models` import it before anything else of theirs, so whoever
imports one of their modules has it.
"""

import contextlib
import math
import os
import platform
import signal
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def leave_at_once(signal_number, frame):
    """Leave on Ctrl-C while TensorFlow is being imported: nothing has begun that could be lost."""
    os.write(2, b"\nInterrupted before anything began. Run the same command again.\n")
    os._exit(128 + signal_number)


def is_our_script():
    """Tell whether the process runs a script of ours, not a notebook or a program of the user's."""
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or os.devnull).resolve()
    return script.is_relative_to(ROOT) and "site-packages" not in script.parts  # of ROOT/.venv


def usable_cores():
    """Return how many of the processor's cores this process may use."""
    return min(visible_cores(), container_quota())


def visible_cores():
    """Return how many cores the system would run this process on; TensorFlow counts the same."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def container_quota(cgroup=Path("/sys/fs/cgroup"), process=Path("/proc/self/cgroup")):
    """Return for how many cores at once a container may use processor time, infinity if no limit.

    A part of a core counts as one. Of control groups within each other, each sets its limit.
    https://docs.kernel.org/admin-guide/cgroup-v2.html

    Args:
        cgroup: where Linux has the groups. process: where it says which one the process is in,
            "0::/outer/inner", or in version 1, "2:cpu:/outer/inner".
    """
    version_1 = "cpu.cfs_quota_us", "cpu.cfs_period_us"
    groups = {""}
    with contextlib.suppress(OSError, IndexError):
        groups |= {line.split(":", 2)[2].lstrip("/") for line in process.read_text().splitlines()}
    inside = {each for group in groups for each in (Path(group), *Path(group).parents)}
    quotas = [math.inf]
    for root, names in ((cgroup, ["cpu.max"]), (cgroup / "cpu", version_1)):
        for group in inside:
            try:
                texts = [(root / group / name).read_text() for name in names]
                quota, period = " ".join(texts).split()
                if int(quota) > 0:  # -1 is no limit; neither is "max", which is no number
                    quotas.append(math.ceil(int(quota) / int(period)))
            except (OSError, ValueError, ZeroDivisionError):
                continue
    return min(quotas)


def thread_limit():
    """Return how many threads TensorFlow was told to start at most, infinity if it was not told."""
    text = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else math.inf


def has_home():
    """Tell whether the user has a home, a folder that can be written to."""
    try:
        tempfile.TemporaryFile(dir=os.path.expanduser("~")).close()
    except OSError:
        return False
    return True


def default_keras_home():
    """Return where Keras keeps data and weights: in the user's home, if there is one."""
    home = os.path.expanduser("~") if has_home() else tempfile.gettempdir()
    return os.path.join(home, ".keras")


def pin_to(cores=None):
    """Let this process, and those that it starts from now on, run on these cores only.

    Args:
        cores: their numbers, or None, which changes nothing.

    Returns:
        The numbers of the cores that it could run on before; None where the system, such as macOS
        or Windows, offers no choice. Nothing is changed there.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    return before


if is_our_script() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave_at_once)  # until `machinery.errors.readable_errors` begins

# Whatever a text has in it, printing it must not fail: the terminal may know ASCII only, or there
# may be none at all.
for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:
        setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    elif hasattr(getattr(sys, name), "reconfigure"):
        getattr(sys, name).reconfigure(errors="backslashreplace")

# A terminal that can't move its cursor, as a notebook's output, gets what a log file gets: no bars.
if is_our_script() and os.environ.get("TERM") == "dumb":
    sys.stdout.isatty = lambda: False

# oneDNN computes convolutions faster; without AVX-512 TensorFlow leaves it off.
# https://www.tensorflow.org/install/source#onednn_cpu_optimizations
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# More threads than a container may keep busy would only make each other wait.
if (cores := usable_cores()) < visible_cores():
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(cores))

# Of what libraries find in files, and go on with, users are told what matters by the scripts.
if is_our_script():
    for library in ("PIL", "keras", "zipfile"):
        warnings.filterwarnings("ignore", module=rf"{library}\b")

# No lines about missing GPUs on the screen of someone who knows that he has none.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Pictures go into files and look the same for everyone: no display, no LaTeX, no style of the
# user's, and no Jupyter's.
os.environ["MPLBACKEND"] = "Agg"
os.environ["MATPLOTLIBRC"] = str(Path(__file__).with_name("matplotlibrc"))
if not has_home():  # Matplotlib would warn, and look for all fonts each time
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(tempfile.gettempdir(), ".matplotlib"))

# Keras's settings are its own defaults: the user's keras.json may ask for another backend, data
# format or precision, and variables for fewer epochs. Where the user keeps data and weights stays
# known, to processes that this one starts, too.
SETTINGS_OF_KERAS = str(Path(__file__).with_name("keras_home"))
if os.environ.get("KERAS_HOME") != SETTINGS_OF_KERAS:
    os.environ["USERS_KERAS_HOME"] = os.environ.get("KERAS_HOME") or default_keras_home()
    os.environ["KERAS_HOME"] = SETTINGS_OF_KERAS
KERAS_HOME = Path(os.path.expanduser(os.environ["USERS_KERAS_HOME"]))
os.environ["KERAS_BACKEND"] = "tensorflow"
for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
    os.environ.pop(name, None)
