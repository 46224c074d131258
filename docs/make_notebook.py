"""Make tutorial.ipynb, the README as a notebook whose cells are its commands and its pictures.

    python docs/make_notebook.py

What becomes a cell that runs:

- Indented lines `python SCRIPT ...`, of scripts that make a run or draw pictures: their `--help`
  offers `--sample`, `--out` or `--save`. They get `--sample` where the script takes it. After them
  comes a cell that shows the pictures that they have left.
- A picture in a paragraph of its own: Colab would not find it from a text.

All else is text, commands of other kinds, too: many runs, servers, setting up, and those that name
files that neither are in the repository nor were left, with `--out`, by a line above.

A notebook is JSON. Written as such, it needs no package and changes with none's version, so that a
test can compare it with the README everywhere.
"""

import contextlib
import functools
import io
import json
import re
import runpy
import sys
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this copy of the project

README = ROOT / "README.md"
NOTEBOOK = ROOT / "tutorial.ipynb"
ROOMS = "", "experiments", "extensions"

INTRODUCTION = """\
*This is [README.md](README.md) as a notebook. The first cell sets it up; what the text says about
that is for the terminal.*

*Here, the commands have `--sample` wherever they can: they train on 1,000 images, for a minute or
two. Leave it out for the full run, which takes hours. Most of what the text says about accuracies
and curves is about full runs, and so are the pictures from `results/`.*

*Commands within the text are only shown. To run one, an exercise's for example, put it into a cell
of its own, with a `!` before it; `show_new_pictures()` then shows what it has drawn.*"""

SET_UP = """\
# Where only this notebook is, as on Colab: the address to get the rest of the project from.
REPOSITORY = ""

import os
import sys
import time
from pathlib import Path

from IPython.display import Image, display

# `!python` is to be the Python of this notebook, and to print lines, not progress bars.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["TERM"] = "dumb"

if not Path("harness.py").exists():
    if not Path("tutorial").exists():
        if not REPOSITORY:
            raise SystemExit("Write the address of the project into REPOSITORY, above")
        !git clone --quiet {REPOSITORY} tutorial
    os.chdir("tutorial")
!python -m pip install --quiet -r requirements.txt

shown_until = time.time()


def show_new_pictures():
    \"\"\"Show the pictures that were drawn into runs/ since the last time.\"\"\"
    global shown_until
    pictures = sorted(Path("runs").rglob("*.png"), key=os.path.getmtime)
    for path in pictures:
        if path.stat().st_mtime > shown_until:
            print(path)
            display(Image(path))
    shown_until = time.time()"""


def notebook(readme, options=("--sample",)):
    """Return a notebook in Jupyter's format, https://nbformat.readthedocs.io, of a dict.

    Args:
        readme: a text in Markdown.
        options: what each command gets whose script takes it, with values, as `--epochs 2`.
    """
    cells = [("markdown", INTRODUCTION), ("code", SET_UP), ("markdown", "")]
    left = set()  # folders, by the lines that are run
    for paragraph in re.split(r"\n{2,}", readme.strip("\n")):
        lines = []
        for line in paragraph.splitlines():
            runs = is_to_run(line, left)
            left.update(re.findall(r" --out (\S+)", line) if runs else ())
            lines.append((runs, line))
        if picture := re.fullmatch(r"!\[(.*)\]\((?!\w+:)(.*)\)", paragraph):
            alt, path = picture.groups()
            cells += [("code", f"Image({json.dumps(path)})  # {alt}"), ("markdown", "")]
        elif any(runs for runs, _ in lines):
            for runs, group in groupby(lines, itemgetter(0)):
                text = "\n".join(with_options(line, options) if runs else line for _, line in group)
                cells.append(("code" if runs else "markdown", text))
            cells += [("code", "show_new_pictures()"), ("markdown", "")]
        elif paragraph.startswith("#"):  # Colab folds a notebook by the headings of its cells
            cells.append(("markdown", paragraph))
        else:
            cells[-1] = ("markdown", f"{cells[-1][1]}\n\n{paragraph}".lstrip("\n"))
    return {
        "cells": [cell(kind, text) for kind, text in cells if text],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 4,  # from 5 on, cells have names, which would change with each new one
    }


def cell(kind, text):
    of_code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    source = text.splitlines(keepends=True)
    return {"cell_type": kind, "metadata": {}, "source": source} | of_code


def is_to_run(line, left):
    """Tell whether a line of the README is a command that the notebook runs.

    Args:
        line: of the README.
        left: the folders that lines above it leave.
    """
    plain = r"[^#|&;<>(){}$`'\"\\]*"  # without what a shell or IPython would understand otherwise
    command = re.fullmatch(rf"    python ((?:\w+/)?\w+\.py)((?: {plain})?)(?: #.*)?", line)
    if not command or not any(offers(command[1], name) for name in ("--sample", "--out", "--save")):
        return False
    words = command[2].split()
    needed = [
        word
        for option, word in pairwise(["", *words])
        if (re.search(r"[a-z]\w*/|\.[a-z]\w*$", word) or option == "--data") and option != "--out"
    ]
    return all((ROOT / path).exists() or path in left for path in needed)


def with_options(line, options):
    """Return a command for a cell, with those of the options that its script offers and it lacks.

    What a comment says of it, how long it takes, is not true of it any more.
    """
    words = line.partition(" #")[0].split()
    excluded = {*words} | ({"--sample"} if "--data" in words else set())
    names = {option: option.split()[0] for option in options}
    new = [
        option for option, name in names.items() if name not in excluded and offers(words[1], name)
    ]
    return "!" + (" ".join([*words, *new]) if new else line.strip())


def offers(script, option):
    """Tell whether a script of the project has an option."""
    return re.search(rf"^  {option}\b", help_of(script), re.M) is not None


@functools.cache
def help_of(script):
    """Return what a script prints with `--help`, "" if it is none that learners run."""
    path, output = ROOT / script, io.StringIO()
    if not path.exists() or path.parent.relative_to(ROOT).name not in ROOMS:
        return ""
    arguments = sys.argv
    sys.argv = [script, "--help"]
    try:  # in this process: importing TensorFlow takes longer than all the rest
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = arguments
    return output.getvalue()


if __name__ == "__main__":
    content = notebook(README.read_text())
    NOTEBOOK.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"Notebook: {NOTEBOOK}")
