"""The house: what a learner reads is short, and nothing gets between a script and its own copy."""

import ast
import re
import shutil
import subprocess
import sys

from conftest import ROOT, TINY, result, run

import pytest

FOLDERS = [
    folder
    for folder in (ROOT, *(ROOT / name for name in ("experiments", "extensions", "benchmarks")))
    if folder.is_dir()
]
PACKAGES = ("data", "machinery", "models", "experiments", "extensions")


def scripts():
    """What is run by `python PATH`, from the project's folder."""
    return [
        str(path.relative_to(ROOT))
        for folder in (*FOLDERS, ROOT / "docs")
        for path in sorted(folder.glob("*.py"))
        if '__name__ == "__main__"' in path.read_text()
    ]


def test_script_runs_its_own_copy_of_the_project(tmp_path):
    """Whatever else of these names is about, and with an edited network."""
    copy = tmp_path / "my copy"
    unneeded = "results", "runs", ".git", ".venv", "docs", "tests", "*.pyc", "__pycache__"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*unneeded))
    vgg = copy / "models" / "vgg.py"
    code = vgg.read_text()
    edited = code.replace("layers.Dense(\n        128,", "layers.Dense(\n        64,")
    assert edited != code
    vgg.write_text(edited)

    hostile = tmp_path / "hostile"
    for name in PACKAGES:
        (hostile / name).mkdir(parents=True)
        (hostile / name / "__init__.py").write_text(f"raise SystemExit('{name} of another')\n")
    for name in ("harness", "dataset", "options", "conftest"):
        (hostile / f"{name}.py").write_text(f"raise SystemExit('{name} of another')\n")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(hostile, elsewhere)

    ended = run(
        "experiments/baseline1.py", *TINY, "--epochs", 1,
        root=copy, cwd=elsewhere, PYTHONPATH=str(hostile),
    )  # fmt: skip
    assert ended.code == 0, ended.errors
    convolutions = (9 * 3 + 1) * 32 + (9 * 32 + 1) * 32
    dense = (16 * 16 * 32 + 1) * 64 + (64 + 1) * 10
    assert result(elsewhere / "runs" / "baseline1.json")["parameters"] == convolutions + dense


def test_scripts_find_their_own_copy_of_the_project_in_safe_mode_too(tmp_path):
    """In which Python does not look into a script's folder."""
    ended = run("predict.py", "--help", cwd=tmp_path, PYTHONSAFEPATH="1")
    assert ended.code == 0, ended.errors
    ours = re.compile(rf"^from ({'|'.join(PACKAGES)}|harness)\b", re.M)
    for script in scripts():
        code = (ROOT / script).read_text()
        if ours.search(code):
            assert "\nsys.path.insert(0, str(Path(__file__).resolve().parent" in code, script


FIRST_IMPORT = """
import runpy
import sys
from pathlib import Path

class Stopped(BaseException):
    pass

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "matplotlib"):
            raise Stopped

sys.meta_path.insert(0, Stop())
path = sys.path[:]
root = Path(sys.argv[1])
for script in sys.argv[2:]:
    sys.path[:] = [str((root / script).parent), *path]
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if root in file.parents and "site-packages" not in file.parts:  # .venv may be in it
            del sys.modules[name]
    try:
        runpy.run_path(str(root / script), run_name="imported")
    except Stopped:
        print(script, "set up" if "machinery.environment" in sys.modules else "not set up")
    else:
        print(script, "needs none of them")
"""


def test_scripts_set_the_process_up_before_they_import_tensorflow(tmp_path):
    """TensorFlow and Matplotlib read the environment when they are imported."""
    process = subprocess.run(
        [sys.executable, "-c", FIRST_IMPORT, str(ROOT), *scripts()],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = dict(line.split(" ", 1) for line in process.stdout.splitlines())
    assert found.pop("experiments/in_one_file.py") == "not set up"  # it shows plain Keras
    assert len(found) >= 15
    assert [script for script, how in found.items() if how == "not set up"] == []


@pytest.fixture(scope="module")
def story():
    """The lines of `run_experiment` up to its call of `fit`, and the tree of harness.py."""
    tree = ast.parse((ROOT / "harness.py").read_text())
    (function,) = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "run_experiment"
    )
    (fit,) = (
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "model.fit"
    )
    return tree, function, fit


def test_training_is_reached_within_forty_lines(story):
    _, function, fit = story
    assert fit.lineno - function.lineno + 1 <= 40


def test_training_is_reached_by_ten_calls_of_our_own(story):
    tree, function, fit = story
    ours = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in PACKAGES:
            ours |= {name.name for name in node.names}
    called = {
        ast.unparse(node.func)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and node.lineno <= fit.end_lineno
    }
    called = {name for name in called if name in ours or name.startswith("run.")}
    assert "load_dataset" in called and "run.callbacks" in called
    assert len(called) <= 10, called


def test_steps_stand_in_order(story):
    lines = (ROOT / "harness.py").read_text().splitlines()[story[1].lineno :]
    steps = [line.strip()[2:].split()[:2] for line in lines if line.strip().startswith("# ")]
    steps = [words for words in steps if words[0].rstrip(".").isdigit()]
    assert [words[0] for words in steps] == ["1.", "2.", "3.", "4.", "5."]
    verbs = [words[1].rstrip(":") for words in steps]
    assert verbs == ["Load", "Prepare", "Define", "Evaluate", "Present"]


def modules(folder):
    """The names that are imported when this folder is on the path."""
    packages = [path.parent.name for path in folder.glob("*/__init__.py")]
    return {path.stem for path in folder.glob("*.py")} - {"__init__"} | set(packages)


def test_no_module_has_the_name_of_a_standard_one():
    """Python puts a script's folder first on the path."""
    for folder in FOLDERS:
        assert modules(folder) & set(sys.stdlib_module_names) == set()


def test_no_experiment_has_the_name_of_what_experiments_import():
    for folder in FOLDERS[1:]:
        assert modules(folder) & (modules(ROOT) | {"keras", "tensorflow", "numpy", "PIL"}) == set()
