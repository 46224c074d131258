import contextlib
import os
import re
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from conftest import ROOT, call
from machinery import options
from machinery.options import (
    command,
    has_native_bfloat16,
    option_parser,
    own_data,
    parse_options,
    script_parser,
    tensorboard_command,
    words_of,
)

import pytest


def parsed(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["baseline1.py", *arguments])
    return parse_options(option_parser(100))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--epochs", "0"], "--epochs: '0' is not a whole number from 1 to 1000000"),
        (["--epochs", "ten"], "--epochs: 'ten' is not a whole number"),
        (["--batch-size", "-64"], "--batch-size"),
        (["--epochs", str(10**20)], "--epochs"),
        (["--batch-size", str(10**20)], "--batch-size"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**32)], "--seed"),
        (["--limit", "19"], "--limit"),
        (["--limit", "50001"], "50001 is above the 50,000 training images"),
        (["--limit", "1001", "--sample"], "1001 is above the 1,000 training images"),
        (["--validation", "train"], "--validation"),
        (["--data", ""], "--data: it is empty"),
        (["--out", ""], "--out: it is empty"),
        (["--sample", "--data", "here"], "--data"),
        (["--out", "/dev/null/runs"], "can't write to /dev/null/runs"),
        (["--out", "/dev/null"], "/dev/null is there, but is no folder: name another one"),
        (["--epoch", "3"], "--epoch"),
        (["--fold", "6/5"], "--fold: '6/5' is not a fold like 1/5, of 2 to 100 folds"),
        (["--fold", "1/5", "--validation", "holdout"], "exclude each other"),
    ],
)
def test_senseless_options_are_refused_in_one_line(
    monkeypatch, capsys, tmp_path, arguments, reason
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refusal:
        parsed(monkeypatch, *arguments)
    usage, error = capsys.readouterr().err.strip().splitlines()
    assert refusal.value.code == 2
    assert usage == "usage: baseline1.py [options]"
    assert reason in error
    assert list(tmp_path.iterdir()) == []


def test_folder_for_what_is_left_behind_is_made(monkeypatch, tmp_path):
    parsed(monkeypatch, "--out", str(tmp_path / "a" / "b"))
    assert list((tmp_path / "a" / "b").iterdir()) == []


ROOMS = ".", "experiments", "extensions", "docs", "benchmarks", "pretrained"
SCRIPTS = [
    str(path.relative_to(ROOT)) for room in ROOMS for path in sorted((ROOT / room).glob("*.py"))
    if re.search(r"(script_parser|option_parser|run_test_harness)(?s:.*)__main__", path.read_text())
]  # fmt: skip
NAMES = "experiments", "against", "ideas"  # free text that is no path


def test_images_of_the_users_own_are_those_of_the_option_or_the_environment(monkeypatch):
    monkeypatch.setenv("CIFAR10_PATH", "~/flowers")
    assert own_data(Namespace(data=None, sample=False)) == os.path.expanduser("~/flowers")
    assert own_data(Namespace(data="mine", sample=False)) == "mine"
    assert own_data(Namespace(data=None, sample=True)) == ""
    monkeypatch.delenv("CIFAR10_PATH")
    assert own_data(Namespace(data=None, sample=False)) == ""


def test_value_that_begins_like_an_option_stays_a_value(monkeypatch):
    parser = option_parser(100)
    before = parser.parse_args(["--data=-flowers", "--out=-x", "--epochs", "3"])
    words = words_of(before, parser)
    assert words == ["--data=-flowers", "--epochs", "3", "--out=-x"]
    assert parser.parse_args(words) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_tilde_is_the_users_home_in_every_path(monkeypatch, tmp_path, script):
    parsers = []

    def look(parser, *arguments, **options):
        parsers.append(parser)
        raise SystemExit

    monkeypatch.setattr(ArgumentParser, "parse_known_args", look)
    monkeypatch.syspath_prepend((ROOT / script).parent)
    call(script, cwd=tmp_path)
    free_text = [
        action for action in parsers[0]._actions if action.nargs != 0 and not action.choices
    ]  # fmt: skip
    kept = set()
    for action in free_text:
        with contextlib.suppress(ArgumentTypeError):  # a number's
            if (action.type or str)("~/x") != os.path.expanduser("~/x"):
                kept.add(action.dest)
    assert kept <= set(NAMES)


def test_help_tells_every_default(monkeypatch, capsys):
    with pytest.raises(SystemExit) as leaving:
        parsed(monkeypatch, "--help")
    assert leaving.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for default in ("(100; 20 with --sample)", "(0)", "(runs)", "(64; "):
        assert default in told


@pytest.mark.parametrize(
    ("flags", "native"),
    [("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx2 fma", False)],
)
def test_bfloat16_is_the_default_where_the_processor_has_it(monkeypatch, tmp_path, flags, native):
    read_text = Path.read_text

    def cpuinfo(path):
        return f"flags\t: {flags}\n" if path == Path("/proc/cpuinfo") else read_text(path)

    monkeypatch.setattr(Path, "read_text", cpuinfo)
    assert has_native_bfloat16() == native
    out = "--out", str(tmp_path)
    assert parsed(monkeypatch, *out).mixed_precision == native
    assert not parsed(monkeypatch, "--no-mixed-precision", *out).mixed_precision
    assert parsed(monkeypatch, "--mixed-precision", *out).mixed_precision


# The commands that a script suggests.


def test_command_is_relative_in_the_project_and_absolute_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert command("compare.py") == "python compare.py"
    assert command("experiments/baseline1.py") == "python experiments/baseline1.py"
    monkeypatch.chdir(tmp_path)
    assert command("compare.py") == shlex.join(["python", f"{ROOT}/compare.py"])


@pytest.mark.parametrize(
    ("script", "given", "carried"),
    [
        ("compare.py", {"out": "elsewhere", "sample": True}, ["elsewhere"]),
        ("compare.py", {"out": "runs"}, []),
        ("compare.py", {"out": ""}, [""]),
        ("evaluate.py", {"model": "my.h5", "sample": True}, ["--model", "my.h5", "--sample"]),
        ("evaluate.py", {"model": "final_model.h5", "data": "a.npz"}, ["--data", "a.npz"]),
        ("predict.py", {"model": "my.h5", "sample": True}, ["--model", "my.h5"]),
        ("experiments/baseline1.py", {"sample": True}, ["--sample"]),
        ("experiments/baseline1.py", {"data": "a.npz", "sample": False}, ["--data", "a.npz"]),
        ("evaluate.py", {"model": "final_model.h5", "data": None, "sample": False}, []),
    ],
)
def test_command_carries_what_the_next_script_needs(monkeypatch, script, given, carried):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(options, "model_to_use", lambda: "final_model.h5")
    assert command(script, Namespace(**given)) == shlex.join(["python", script, *carried])


def test_path_that_begins_like_an_option_is_not_taken_for_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = Namespace(out="-runs", model="-m.h5", data="-d", sample=False)
    pasted = shlex.split(command("evaluate.py", given))
    assert pasted[2:] == ["--model", "./-m.h5", "--data", "./-d"]
    assert shlex.split(command("compare.py", given))[2:] == ["./-runs"]


@pytest.mark.parametrize("strange", ["my runs", "it's", "$HOME", "a;b", 'say "hi"', "x\\y", "*"])
def test_command_can_be_pasted_whatever_the_folders_are_called(monkeypatch, tmp_path, strange):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "ROOT", Path("/") / strange)
    given = Namespace(out=strange, model=strange, data=strange, sample=False)
    pasted = shlex.split(command("evaluate.py", given))
    assert pasted == [
        "python", f"/{strange}/evaluate.py", "--model", strange, "--data", strange
    ]  # fmt: skip
    assert shlex.split(command("compare.py", given))[2:] == [strange]
    logs = f"{strange}/tensorboard"
    assert shlex.split(tensorboard_command(strange)) == ["tensorboard", "--logdir", logs]


def test_errors_are_one_line_whatever_was_typed(capsys):
    with pytest.raises(SystemExit):
        script_parser().parse_args(["a\x1b[2J\nb"])
    assert r"unrecognized arguments: a\x1b[2J\nb" in capsys.readouterr().err.splitlines()[-1]
