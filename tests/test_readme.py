import re

from conftest import ROOT, call
from experiments import EXPERIMENTS
from machinery.options import option_parser

import pytest

README = (ROOT / "README.md").read_text()
PAGES = [
    page
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md")
    for page in sorted(ROOT.glob(pattern))
]


def test_every_script_that_a_page_names_exists():
    text = "\n".join(page.read_text() for page in PAGES)
    scripts = set(commands(text)) - set(re.findall(r"cp \S+ ([\w/]+\.py)", text))
    assert len(scripts) > 10
    assert [script for script in scripts if not (ROOT / script).exists()] == []


def commands(text):
    return re.findall(r"python ([\w/]+\.py)", text)


def test_readme_has_a_command_for_every_experiment():
    scripts = set(commands(README))
    assert {f"experiments/{name}.py" for name in EXPERIMENTS} <= scripts
    assert {"experiments/explore_dataset.py", "experiments/in_one_file.py"} <= scripts
    assert {"finalize.py", "evaluate.py", "predict.py", "compare.py"} <= scripts


def test_every_option_is_in_a_page():
    options = re.findall(r"^  (--[\w-]+)", option_parser(100).format_help(), re.M)
    assert len(options) > 5
    told = {name for page in PAGES for name in re.findall(r"(--[\w-]+)", page.read_text())}
    assert set(options) <= told


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("results", ["results"]), ("extensions", ["results/extensions", "--against", "baseline3"])],
)
def test_table_is_that_of_the_results(name, arguments):
    printed = call("compare.py", "--markdown", *arguments, cwd=ROOT).output
    table = README.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]
    assert table.strip() == printed.strip(), (
        f"put what `python compare.py --markdown {' '.join(arguments)}` prints between the "
        "comments in README.md"
    )


def test_every_picture_exists():
    pictures = [
        page.parent / picture
        for page in PAGES
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())
    ]
    assert pictures and [picture for picture in pictures if not picture.exists()] == []


def test_every_link_within_the_project_leads_somewhere():
    links = [
        (page.name, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert links == []
