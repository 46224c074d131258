"""What the process is set up with, whatever the user has set: asked in processes of their own."""

import contextlib
import json
import math
import os
import platform
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

from conftest import OFFLINE, ROOT, TINY, finish, run, start
from machinery import environment
from machinery.environment import container_quota, thread_limit, usable_cores

import pytest

ASK = """
import os, machinery, keras, matplotlib
import matplotlib.pyplot
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"), os.environ["TF_CPP_MIN_LOG_LEVEL"],
      matplotlib.get_backend(), matplotlib.rcParams["text.usetex"], keras.backend.backend(),
      keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon(),
      keras.config.max_epochs(), keras.config.max_steps_per_epoch())
"""
X86 = platform.machine() in ("x86_64", "AMD64")
USUAL = ["1" if X86 else "None", "3", "Agg", "False", "tensorflow", "channels_last", "float32"]
USUAL += ["1e-07", "None", "None"]


def answer(question, **given):
    """What a process answers to a question in Python, whose environment has more than usual."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    process = subprocess.run(
        [sys.executable, "-c", question],
        cwd=ROOT, env={**clean, **OFFLINE, **given}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return process.stdout.split()


FOR_TENSORFLOW = "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL"


@pytest.mark.parametrize("package", ["machinery", "data", "models"])
def test_packages_set_the_process_up(package):
    told = f"import os, {package}; print(*map(os.environ.get, {FOR_TENSORFLOW}))"
    assert answer(told) == USUAL[:2]
    given = dict(zip(FOR_TENSORFLOW, "01", strict=True))  # the user's own stay
    assert answer(told, **given) == ["0", "1"]


KERAS_JSON = {
    "backend": "jax", "image_data_format": "channels_first", "floatx": "float64", "epsilon": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("content", [json.dumps(KERAS_JSON), "["])
def test_what_the_user_has_set_for_pictures_and_keras_changes_nothing(tmp_path, content):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\nfont.size: 40\n")
    (tmp_path / "keras.json").write_text(content)
    given = {
        "MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "1",
        "KERAS_MAX_STEPS_PER_EPOCH": "2",
    }  # fmt: skip
    assert answer(ASK, **given) == USUAL


def test_missing_keras_is_explained(tmp_path):
    command = [sys.executable, "-S", ROOT / "compare.py"]  # -S: without installed packages
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "compare.py: error: No module named 'numpy': activate the environment" in ended.stderr
    activate = shlex.quote(str(ROOT / ".venv/bin/activate"))
    assert f"`source {activate}`" in ended.stderr  # from any folder


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        ("import keras_is_half_installed", 2, "No module named 'keras_is_half_installed': act"),
        ("raise ImportError('libx.so: no such file')", 1, "ImportError: libx.so: no such file, in"),
    ],
)
def test_package_that_can_not_be_imported_is_told_in_one_line(tmp_path, content, code, told):
    (tmp_path / "matplotlib.py").write_text(content)
    path = os.pathsep.join([str(tmp_path), *map(str, sys.path[1:])])
    ended = run("compare.py", cwd=tmp_path, PYTHONPATH=path, TMPDIR=str(tmp_path))
    assert ended.code == code and "Traceback" not in ended.errors
    assert "compare.py: " in ended.errors and told in ended.errors


def test_mistake_in_a_script_of_the_users_own_is_told_with_its_line(tmp_path):
    """As it is made when the nearest script is copied, and changed."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "results", "tests"))
    script = (copy / "experiments/dropout.py").read_text()
    (copy / "experiments/mine.py").write_text(script.replace("epochs=", "epoch="))
    line = 1 + script[: script.index("epochs=")].count("\n")
    ended = run("experiments/mine.py", "--sample", cwd=tmp_path, root=copy, TMPDIR=str(tmp_path))
    assert ended.code == 1 and "Traceback" not in ended.errors
    assert "mine.py: unforeseen error: TypeError: " in ended.errors
    guess = r"(\. Did you mean 'epochs'\?)?"  # of Python 3.13
    told = rf"'epoch'{guess}, in line {line} of experiments/mine\.py\. The details"
    assert re.search(told, ended.errors)


@pytest.mark.parametrize(
    ("given", "home"),
    [("~/mine", "~/mine"), (None, "~/.keras"), ("~no_such_user/x", "~no_such_user/x")],
)
def test_where_the_user_keeps_data_stays_known_to_child_processes(given, home):
    ask = "from machinery.environment import KERAS_HOME; print(KERAS_HOME)"
    code = f"{ask}\nimport subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])"
    environment = {**os.environ, "KERAS_HOME": given or ""}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.stdout.split() == [os.path.expanduser(home)] * 2, ended.stderr


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
HOSTILE = {
    "nonsense backend, ASCII": {"MPLBACKEND": "nonsense", **ASCII},
    "no home, Latin-1": {"HOME": None, "KERAS_HOME": None, "PYTHONIOENCODING": "latin-1"},
    "home that is not writable": {"HOME": "/proc", "KERAS_HOME": None, "MPLCONFIGDIR": None},
    "home that is no folder": {"HOME": "/dev/null", "KERAS_HOME": None, "MPLCONFIGDIR": None},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_script_works_in_any_environment(tmp_path, name):
    folder = tmp_path / "Fotos für $x_y 写真 'n"
    folder.mkdir()
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\n")
    environment = {**os.environ, **OFFLINE, **HOSTILE[name]}
    environment = {key: value for key, value in environment.items() if value is not None}
    ended = subprocess.run(
        [sys.executable, ROOT / "experiments/baseline1.py", *map(str, TINY), "--epochs", "1",
         "--out", folder],
        cwd=tmp_path, env=environment, capture_output=True,
    )  # fmt: skip
    errors = ended.stderr.decode(errors="replace")
    assert ended.returncode == 0, errors
    assert (folder / "baseline1.png").exists()
    for word in ("cuInit", "Traceback", "UserWarning", "cache directory"):
        assert word not in errors
    assert b"\nLearning curves: " in ended.stdout


def test_photo_with_any_name_is_told_in_any_output(tmp_path):
    shutil.copy(ROOT / "sample_image.png", tmp_path / "Fuß 猫.png")
    ended = run("predict.py", "Fuß 猫.png", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert ended.code == 0 and r"Fu\xdf \u732b.png: 4 deer" in ended.output, ended.errors


STRANGER = {"user": 54321, "group": 54321, "extra_groups": []}  # of whom the system knows nothing


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
@pytest.mark.parametrize(
    ("name", "arguments"), [("baseline1", (*TINY, "--epochs", 1)), ("in_one_file", ["--help"])]
)
def test_user_whom_the_system_does_not_know_can_train(tmp_path, name, arguments):
    for folder in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(OSError):
            folder.chmod(folder.stat().st_mode | 0o555)
    tmp_path.chmod(0o777)
    may_read = f'[ -r "{ROOT}/harness.py" ] && [ -x "{sys.executable}" ]'
    if subprocess.call(["sh", "-c", may_read], **STRANGER, cwd=tmp_path):
        pytest.skip("this copy of the project, or its Python, is not for others to read")
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    ended = subprocess.run(
        [sys.executable, ROOT / f"experiments/{name}.py", *map(str, arguments)],
        cwd=tmp_path, env=environment, **STRANGER, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    assert "--sample" in ended.stdout or (tmp_path / "runs" / "baseline1.png").exists()


@pytest.mark.parametrize(("terminal", "bars"), [("xterm", True), ("dumb", False)])
def test_progress_bars_are_drawn_where_the_cursor_can_move(tmp_path, terminal, bars):
    screen, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, ROOT / "experiments/baseline1.py", *map(str, TINY), "--epochs", "1"],
        cwd=tmp_path, env={**os.environ, **OFFLINE, "TERM": terminal}, stdout=end,
    )  # fmt: skip
    os.close(end)
    shown = b""
    with open(screen, "rb", buffering=0) as file, contextlib.suppress(OSError):  # at its end
        while read := file.read(1000):
            shown += read
    assert process.wait() == 0 and b"Learning curves: " in shown
    assert (b"\b" in shown) == bars and b"test_accuracy: " in shown


def test_no_output_at_all_is_no_error(tmp_path):
    script = ROOT / "experiments/baseline1.py"
    command = [sys.executable, script, *map(str, TINY), "--epochs", "1"]
    shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
    ended = subprocess.run(shell, cwd=tmp_path, env={**os.environ, **OFFLINE})
    assert ended.returncode == 0
    assert (tmp_path / "runs" / "baseline1.png").exists()


@pytest.mark.parametrize("seconds", [0.3, 1, 2])
def test_ctrl_c_while_everything_is_imported_leaves_no_traceback(tmp_path, seconds):
    process = start("experiments/baseline1.py", *TINY, "--epochs", 9999, cwd=tmp_path)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 130 and "Traceback" not in ended.errors


def test_program_of_the_users_that_imports_us_keeps_its_ctrl_c():
    code = "import machinery, signal; print(signal.getsignal(2) is signal.default_int_handler)"
    code = f"import signal; signal.signal(2, signal.default_int_handler); {code}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "True\n"


@pytest.mark.parametrize(
    ("script", "ours"),
    [("compare.py", True), ("experiments/mine.py", True), ("../elsewhere.py", False),
     (".venv/lib/python3/site-packages/pytest/__main__.py", False), (None, False)],
)  # fmt: skip
def test_scripts_of_the_environment_are_not_ours(monkeypatch, script, ours):
    monkeypatch.setattr(
        sys.modules["__main__"], "__file__", script and str(ROOT / script), raising=False
    )
    assert environment.is_our_script() == ours


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, math.inf),
        ({"cpu.max": "\n"}, math.inf),
        ({"cpu.max": "200000 0\n"}, math.inf),
        ({}, math.inf),
    ],
)
def test_quota_of_a_container_counts_as_cores(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert container_quota(tmp_path, tmp_path / "nowhere") == cores


@pytest.mark.parametrize(
    ("quotas", "cores"), [("max 4 2", 2), ("3 1 2", 1), ("max max max", math.inf)]
)
@pytest.mark.parametrize(
    ("listed", "root", "name"),
    [("0::/outer/inner\n", "", "cpu.max"), ("3:memory:/\n2:cpu,cpuacct:/outer/inner\n", "cpu", "")],
)
def test_of_groups_within_each_other_the_least_quota_counts(
    tmp_path, quotas, cores, listed, root, name
):
    folders = [tmp_path / root / group for group in ("", "outer", "outer/inner")]
    for folder, quota in zip(folders, quotas.split(), strict=True):
        folder.mkdir(exist_ok=True)
        period = 100_000
        quota = str(int(quota) * period) if quota.isdecimal() else quota
        if name:
            (folder / name).write_text(f"{quota} {period}\n")
        else:
            (folder / "cpu.cfs_quota_us").write_text(quota.replace("max", "-1"))
            (folder / "cpu.cfs_period_us").write_text(f"{period}")
    (tmp_path / "listed").write_text(listed)
    assert container_quota(tmp_path, tmp_path / "listed") == cores


COUNT_THREADS = """
import machinery, os, tensorflow as tf
tf.matmul(tf.ones((500, 500)), tf.ones((500, 500)))
print(len(os.listdir("/proc/self/task")))
"""
# In a mount namespace of its own, where Linux seems to say that there is a quota of half a core.
QUOTA = "mount -t tmpfs none /sys/fs/cgroup && echo 50000 100000 > /sys/fs/cgroup/cpu.max"
MAY_MOUNT = shutil.which("unshare") and not subprocess.call(
    ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], stderr=subprocess.DEVNULL
)


@pytest.mark.skipif(not MAY_MOUNT, reason="needs the right to mount")
def test_tensorflow_has_fewer_threads_where_the_quota_is_half_a_core():
    def threads(*command):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        ended = subprocess.run(
            [*command, sys.executable, "-c", COUNT_THREADS],
            cwd=ROOT, env=clean, capture_output=True, text=True,
        )  # fmt: skip
        return int(ended.stdout or 0)

    with_quota = threads("unshare", "-m", "sh", "-c", f'{QUOTA} && exec "$@"', "sh")
    assert 0 < with_quota < threads() or usable_cores() == 1


@pytest.mark.parametrize(
    ("told", "most"),
    [("3", 3), ("0", math.inf), ("many", math.inf), ("\u00b2", math.inf), (None, math.inf)],
)
def test_thread_limit(monkeypatch, told, most):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    if told:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", told)
    assert thread_limit() == most
