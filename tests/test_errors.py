"""How scripts end, and what they say then."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from conftest import ROOT
from machinery.errors import UsageError, printable, readable_errors

import pytest
import tensorflow as tf


@pytest.fixture(autouse=True)
def script(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["folder/script.py"])
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


# As usual: unbuffered output leaves nothing to be written at the end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

TOO_LITTLE = (
    "too little memory: close other programs, or take fewer or smaller images, or a smaller "
    "--batch-size"
)


def leaving(error):
    with pytest.raises(SystemExit) as leaving, readable_errors():
        raise error
    return leaving.value.code


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UsageError("no such thing"), "no such thing"),
        (OSError("no such thing"), "no such thing"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device"),
        (OSError(300 * "x" + "\nmore"), 200 * "x"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory"),
            "the folder that you are in was deleted: change to another one",
        ),
        (MemoryError(), TOO_LITTLE),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), TOO_LITTLE),
        (OSError("\x1b[2J\rgone"), r"\x1b[2J\rgone"),
        (UsageError("no file \x1b[2J\rgone"), r"no file \x1b[2J\rgone"),
        (OSError(errno.ENOSPC, "disk full", "\x1b[2J"), r"\x1b[2J: disk full"),
    ],
)
def test_errors_of_the_users_are_one_line_and_exit_code_2(capsys, error, told):
    assert leaving(error) == 2
    assert capsys.readouterr().err == f"script.py: error: {told}\n"


@pytest.mark.parametrize(
    "text",
    [
        "Screenshot 1.00\u202fPM",
        "白\u3000猫",
        "\u0645\u06cc\u200c\u062e\u0648",
        "\U0001f469\u200d\U0001f33e",
    ],
)
def test_spaces_and_joiners_of_any_script_stay(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "\u202egnp.exe", "\udcff", "a\nb"])
def test_what_controls_the_terminal_is_written_out(text):
    assert printable(text).isprintable() and "\\" in printable(text)


def test_ctrl_c_leaves_as_a_shell_reports_it(capsys):
    assert leaving(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "")


def test_unforeseen_errors_are_told_in_short_and_kept_in_full(capsys):
    assert leaving(ZeroDivisionError("division\nby zero")) == 1
    told = capsys.readouterr().err
    assert told.startswith("script.py: unforeseen error: ZeroDivisionError: division, in line ")
    assert " of tests/test_errors.py. The details are in " in told
    assert told.count("\n") == 1
    path = Path(told.partition("details are in ")[2].partition(":")[0])
    assert "ZeroDivisionError: division\nby zero" in path.read_text()
    path.unlink()


@pytest.mark.parametrize("name", ["\udcff", "Ü"])
def test_unforeseen_errors_are_kept_whatever_characters_are_in_them(capsys, monkeypatch, name):
    in_ascii = partial(tempfile.NamedTemporaryFile, encoding="ascii")
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", in_ascii)
    assert leaving(ZeroDivisionError(name)) == 1
    path = Path(capsys.readouterr().err.partition("details are in ")[2].partition(":")[0])
    assert ascii(name)[1:-1] in path.read_text()
    path.unlink()


def test_unforeseen_errors_that_can_not_be_kept_are_told_in_full(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert leaving(ZeroDivisionError("division")) == 1
    assert "Please report the details:\nTraceback" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["", "; sys.exit(0)"])
@pytest.mark.parametrize(("to", "code"), [(">/dev/full", 2), ("| true", 141)])
def test_output_that_nobody_takes_is_told_at_the_end(ending, to, code):
    """A short one, which is still in the buffer when the script ends."""
    script = f"""
import sys, time
from machinery.errors import readable_errors
with readable_errors():
    print("x"); time.sleep(0.3){ending}
"""
    shell = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {to}', sys.executable, script]
    ended = subprocess.run(shell, cwd=ROOT, env=BUFFERED, capture_output=True, text=True)
    assert ended.returncode == code, ended
    assert "Exception ignored" not in ended.stderr


PRINT = """
import sys, time
from machinery.errors import readable_errors
with readable_errors():
    for number in range(100_000):
        print("a line", number)
    print("done", file=sys.stderr)
"""


def test_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -c '{PRINT}' | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=BUFFERED, capture_output=True, text=True
    )
    assert ended.stdout == "a line 0\n141\n"
    assert "Traceback" not in ended.stderr and "BrokenPipe" not in ended.stderr


def test_reader_that_has_left_before_the_only_line_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    code = "from machinery.errors import readable_errors\nwith readable_errors():\n    print(1)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=BUFFERED, stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_ctrl_c_ends_a_script_unless_a_shell_has_it_ignored(before):
    signal.signal(signal.SIGINT, before)
    ignored = before == signal.SIG_IGN
    with readable_errors():
        now = signal.getsignal(signal.SIGINT)
    assert now == (signal.SIG_IGN if ignored else signal.default_int_handler)


def test_second_ctrl_c_does_not_disturb_the_end():
    code = (
        "import atexit, os\nfrom machinery.errors import readable_errors\n"
        "atexit.register(lambda: os.kill(os.getpid(), 2))\n"
        "with readable_errors():\n    raise KeyboardInterrupt\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 130 and "Traceback" not in ended.stderr


def test_ctrl_c_after_the_end_disturbs_nothing():
    code = (
        "import atexit, os, signal\nfrom machinery.errors import readable_errors\n"
        "signal.signal(2, signal.default_int_handler)\n"
        "atexit.register(lambda: os.kill(os.getpid(), 2))\n"
        "with readable_errors():\n    print('all is done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
    assert ended.stdout == "all is done\n"


def test_a_line_of_python_in_the_terminal_tells_errors_of_use_in_one_line():
    """As the README has some, `python -c "from harness import load_dataset; ..."`."""

    def ended(error):
        code = f"from machinery.errors import UsageError; raise {error}"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )

    assert ended("UsageError('no such thing')").stderr == "error: no such thing\n"
    assert ended("UsageError('no such thing')").returncode == 2
    assert "Traceback" in ended("ZeroDivisionError").stderr
