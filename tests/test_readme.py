import re

from conftest import ROOT

from options import option_parser

README = (ROOT / "README.md").read_text()


def test_every_script_in_the_readme_exists():
    scripts = set(re.findall(r"python ([\w/]+\.py)", README))
    assert len(scripts) > 10
    assert [script for script in scripts if not (ROOT / script).exists()] == []


def test_every_option_is_in_the_readme():
    options = re.findall(r"^  (--[\w-]+)", option_parser(100).format_help(), re.M)
    assert len(options) > 5
    assert set(options) <= set(re.findall(r"`(--[\w-]+)", README))


def test_every_picture_in_the_readme_exists():
    pictures = re.findall(r"!\[.*\]\((.*)\)", README)
    assert pictures and all((ROOT / picture).exists() for picture in pictures)
