"""What the process is set up with, asked in processes that need no TensorFlow."""

import os
import platform
import subprocess
import sys

from conftest import ROOT, TINY, run

import pytest

NAMES = ("TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "MPLBACKEND")
X86 = platform.machine() in ("x86_64", "AMD64")


def environment_after_importing(package, **given):
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    process = subprocess.run(
        [sys.executable, "-c", f"import {package}, os; print(*map(os.environ.get, {NAMES}))"],
        cwd=ROOT, env={**clean, **given}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return process.stdout.split()


@pytest.mark.parametrize("package", ["machinery", "data", "models"])
def test_packages_set_the_process_up(package):
    assert environment_after_importing(package) == ["1" if X86 else "None", "3", "Agg"]


def test_what_the_user_has_set_for_tensorflow_is_kept():
    given = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "1"}
    assert environment_after_importing("machinery", **given)[:2] == ["0", "1"]


def test_pictures_need_no_display_whatever_a_notebook_has_set():
    backend = "module://matplotlib_inline.backend_inline"
    assert environment_after_importing("machinery", MPLBACKEND=backend)[2] == "Agg"


def test_a_script_starts_without_frightening_lines(tmp_path):
    arguments = (*TINY, "--epochs", 1)
    ended = run("experiments/baseline1.py", *arguments, cwd=tmp_path, MPLBACKEND="nonsense")
    assert ended.code == 0, ended.errors
    assert (tmp_path / "runs" / "baseline1.png").exists()
    for word in ("cuInit", "Traceback", "UserWarning"):
        assert word not in ended.errors
