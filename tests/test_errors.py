import sys

from machinery.errors import UsageError, readable_errors

import pytest


@pytest.mark.parametrize("error", [UsageError("no such thing"), OSError("no such thing")])
def test_errors_of_the_users_are_one_line_and_exit_code_2(monkeypatch, capsys, error):
    monkeypatch.setattr(sys, "argv", ["folder/script.py"])
    with pytest.raises(SystemExit) as leaving, readable_errors():
        raise error
    assert leaving.value.code == 2
    assert capsys.readouterr().err == "script.py: error: no such thing\n"


def test_ctrl_c_leaves_as_a_shell_reports_it():
    with pytest.raises(SystemExit) as leaving, readable_errors():
        raise KeyboardInterrupt
    assert leaving.value.code == 130


def test_errors_of_the_code_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), readable_errors():
        1 / 0  # noqa: B018
