import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from machinery.errors import UsageError
from machinery.lock import only_owner, owner_of

import pytest

HOLD = """
import sys, time
from machinery.errors import UsageError
from machinery.lock import only_owner
try:
    with only_owner(sys.argv[1], "the run"):
        print("mine", flush=True)
        time.sleep(float(sys.argv[2]))
except UsageError:
    print("not mine")
"""


def holder(path, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_second_owner_is_told_the_first_ones_number(tmp_path):
    path = tmp_path / "run.lock"
    with only_owner(path, "the run"):
        assert owner_of(path) == os.getpid()
        told = pytest.raises(UsageError, match=f"the run belongs to process {os.getpid()}")
        with told, only_owner(path, "the run"):
            pass
        assert path.exists()  # the refused one has not removed it
    assert owner_of(path) is None and not path.exists()


def test_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "run.lock"
    process = holder(path, 100)
    assert process.stdout.readline() == "mine\n"
    assert owner_of(path) == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists() and owner_of(path) is None
    with only_owner(path, "the run"):
        assert owner_of(path) == os.getpid()


@pytest.mark.parametrize("number", ["", "garbage"])
def test_owner_that_has_not_said_its_number_is_one(tmp_path, number):
    with only_owner(tmp_path / "run.lock", "the run"):
        (tmp_path / "run.lock").write_text(number)
        assert owner_of(tmp_path / "run.lock") == 0


def test_of_many_that_start_at_once_one_is_the_owner(tmp_path):
    processes = [holder(tmp_path / "run.lock", 2) for _ in range(6)]
    said = sorted(process.communicate()[0] for process in processes)
    assert said == ["mine\n"] + ["not mine\n"] * 5


def test_owners_that_follow_each_other_quickly_never_overlap(tmp_path):
    # Each removes its file in the end, and the next may have opened it before.
    processes = [holder(tmp_path / "run.lock", 0) for _ in range(12)]
    said = [process.communicate()[0] for process in processes]
    assert set(said) <= {"mine\n", "not mine\n"} and "mine\n" in said
    assert not (tmp_path / "run.lock").exists()


def test_who_waits_has_the_lock_next(tmp_path, capsys):
    path = tmp_path / "cache.lock"
    process = holder(path, 1)
    assert process.stdout.readline() == "mine\n"
    with only_owner(path, "the cache", wait=True):
        assert process.wait(10) == 0
        assert owner_of(path) == os.getpid()
    assert f"Waiting for process {process.pid}, which has the cache" in capsys.readouterr().out
    assert not path.exists()


def test_file_is_removed_while_nobody_else_can_have_the_lock(tmp_path, monkeypatch):
    owners, unlink = [], Path.unlink

    def note_owner(path, **options):
        owners.append(owner_of(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", note_owner)
    with only_owner(tmp_path / "run.lock", "the run"):
        pass
    assert owners == [os.getpid()]


def test_pipe_in_the_place_of_a_lock_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.lock")
    refused = pytest.raises(UsageError, match=r"run\.lock .* no regular file: move it away")
    with refused, only_owner(tmp_path / "run.lock", "the run"):
        pass
    assert owner_of(tmp_path / "run.lock") is None


def test_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / "run.lock").symlink_to("mine.txt")
    refused = pytest.raises(UsageError, match=r"run\.lock .* no regular file: move it away")
    with refused, only_owner(tmp_path / "run.lock", "the run"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("content", [b"my notes", b"\xff\xfe"])
def test_file_of_the_users_own_in_the_place_of_a_lock_is_kept(tmp_path, content):
    (tmp_path / "run.lock").write_bytes(content)
    refused = pytest.raises(UsageError, match=r"run\.lock is no lock")
    with refused, only_owner(tmp_path / "run.lock", "the run"):
        pass
    assert (tmp_path / "run.lock").read_bytes() == content


def test_lock_that_can_not_be_written_is_told_by_name(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as a full disk
    try:
        with (
            pytest.raises(UsageError, match=r"run\.lock can't be written: File too large"),
            only_owner(tmp_path / "run.lock", "mine"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
