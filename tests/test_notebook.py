"""tutorial.ipynb: that it is made from the README, and that its commands run on the sample."""

import json
import re
import runpy
import shutil
import subprocess

from conftest import ROOT

import pytest

MADE = runpy.run_path(str(ROOT / "docs" / "make_notebook.py"))
README = (ROOT / "README.md").read_text()
SHOW = ("code", "show_new_pictures()")


def cells(*paragraphs, **options):
    """The cells that are made of a README's paragraphs, `(type, text)` each."""
    made = MADE["notebook"]("\n\n".join(paragraphs) + "\n", **options)["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in made][2:]


def test_notebook_is_that_of_the_readme():
    committed = json.loads((ROOT / "tutorial.ipynb").read_text())
    assert committed == MADE["notebook"](README), "`python docs/make_notebook.py` makes it anew"


def test_notebook_says_all_that_the_readme_does():
    text = "\n".join(text for _, text in cells(README))
    kept = [line for line in README.splitlines() if line and line[0] not in " !"]
    assert len(kept) > 100 and [line for line in kept if line not in text] == []


def test_commands_become_cells_that_run_on_the_sample():
    assert cells(
        "Text.",
        "    python experiments/dropout.py         # an hour\n"
        "    python extensions/adam.py --epochs 10\n"
        "    python experiments/baseline3.py --sample --out runs/try",
        "More text.",
        "    python compare.py runs/try            # a few seconds",
    ) == [
        ("markdown", "Text."),
        (
            "code",
            "!python experiments/dropout.py --sample\n"
            "!python extensions/adam.py --epochs 10 --sample\n"
            "!python experiments/baseline3.py --sample --out runs/try",
        ),
        SHOW,
        ("markdown", "More text."),
        ("code", "!python compare.py runs/try            # a few seconds"),
        SHOW,
    ]


def test_commands_get_the_options_that_their_scripts_offer():
    paragraph = "    python finalize.py --epochs 3\n    python evaluate.py\n    python predict.py"
    made, _ = cells(paragraph, options=("--sample", "--epochs 2", "--limit 100"))
    assert made[1].splitlines() == [
        "!python finalize.py --epochs 3 --sample --limit 100",
        "!python evaluate.py --sample",
        "!python predict.py",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "python run_all.py",
        "python run_all.py baseline3 extensions --epochs 10 --out runs/ten",
        "python predict.py my_photo.jpg another.png",
        "python experiments/baseline1.py --data my_pictures",
        "python -m pytest",
        'python -c "import keras"',
        "python docs/draw_pictures.py",
        "python benchmarks/comparison.py",
        "python no_such_script.py --sample",
        "python3 -m venv .venv && .venv/bin/python experiments/baseline3.py --sample",
        "python experiments/baseline3.py --sample | tail -5",
        "for seed in 0 1; do python experiments/baseline3.py --seed $seed; done",
        "git checkout experiments/dropout.py",
        "Dataset: the sample that ships with this project",
    ],
)
def test_other_lines_are_only_shown(line):
    assert cells(f"    {line}") == [("markdown", f"    {line}")]
    assert cells(f"    python predict.py\n    {line}\n    python explain.py") == [
        ("code", "!python predict.py"),
        ("markdown", f"    {line}"),
        ("code", "!python explain.py"),
        SHOW,
    ]


def test_what_needs_what_is_not_run_is_only_shown():
    many = "    python run_all.py --out runs/ten\n    python compare.py runs/ten"
    assert cells(many) == [("markdown", many)]


def test_photo_of_the_repository_is_looked_at():
    made, _ = cells("    python predict.py sample_image.png")
    assert made == ("code", "!python predict.py sample_image.png")


def test_pictures_of_the_repository_become_cells_and_headings_begin_some():
    badge, inline = "![passing](https://example.com/x.svg)", "So ![small](docs/block.png) it is."
    assert cells("# One", badge, "![Curves](results/a.png)", inline, "## Two", "Text.") == [
        ("markdown", f"# One\n\n{badge}"),
        ("code", 'Image("results/a.png")  # Curves'),
        ("markdown", inline),
        ("markdown", "## Two\n\nText."),
    ]


# What its cells do, in a kernel.


def execute(notebook, folder):
    """Execute a notebook in a folder; return of each cell of code what it printed and drew."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.reads(json.dumps(notebook), as_version=4)
    nbformat.validate(book)
    resources, patient = {"metadata": {"path": str(folder)}}, {"timeout": 1200, "iopub_timeout": 60}
    nbclient.NotebookClient(book, kernel_name="python3", resources=resources, **patient).execute()
    found = []
    for cell in book.cells:
        if cell.cell_type == "code":
            printed = "".join(output.get("text", "") for output in cell.outputs)
            pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
            found.append((cell.source, printed, len(pictures)))
    return found


@pytest.fixture
def own_jupyter(monkeypatch, tmp_path):
    """Neither the user's settings of Jupyter and IPython nor a trace in them."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_every_cell_of_the_notebook_runs(tmp_path, own_jupyter):
    """Beside the project, as on Colab, and with two epochs of twenty images."""
    unneeded = (
        "runs",
        "final_model.[hk]*",
        "earlier",
        ".git",
        ".venv",
        "tests",
        "benchmarks",
        "*.pyc",
    )
    ignore = shutil.ignore_patterns(*unneeded)
    shutil.copytree(ROOT, tmp_path / "tutorial", ignore=ignore)
    options = "--sample", "--epochs 2", "--limit 20"
    done = execute(MADE["notebook"](README, options), tmp_path)
    assert len(done) > 20
    for source, printed, pictures in done:
        assert not re.search(r"error:|Traceback|not found", printed), (source, printed)
        assert pictures >= source.startswith(("Image", "show")), source
        experiments = re.findall(r"^!python (?:experiments|extensions)/(?!explore)", source, re.M)
        assert len(re.findall(r"^> \d+\.\d+ \(on 20 training", printed, re.M)) >= len(experiments)
    assert sum("!python" in source for source, _, _ in done) > 10


def test_what_is_missing_on_colab_is_cloned(tmp_path, own_jupyter):
    project = tmp_path / "project"
    project.mkdir()
    (project / "harness.py").touch()
    (project / "requirements.txt").touch()
    git = ("git", "-C", project, "-c", "user.name=a", "-c", "user.email=a@example.com")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *command], check=True)

    book = MADE["notebook"]("# Nothing else\n")
    first = book["cells"][1]["source"]
    place = first.index('REPOSITORY = ""\n')
    first[place] = f"REPOSITORY = {str(project)!r}\n"
    ((_, printed, _),) = execute(book, tmp_path)
    assert printed == "" and (tmp_path / "tutorial" / "harness.py").exists()
