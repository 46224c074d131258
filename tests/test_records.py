from argparse import Namespace

from data.cifar10 import ARRAYS_SHA256
from machinery import records
from machinery.errors import UsageError
from machinery.records import (
    RunFiles,
    accuracy_line,
    archive_earlier_run,
    find_earlier_run,
    read_history,
    read_result,
    remark_on_data,
    remove_partial_files,
    stopped_early,
    write_history,
    write_result,
)

import pytest

HISTORY = {
    "epoch": [1, 2, 3],
    "train_loss": [2.0, 1.5, 1.0],
    "train_accuracy": [30.0, 45.0, 60.0],
    "test_loss": [1.8, 1.6, 1.7],
    "test_accuracy": [32.0, 40.0, 41.0],
    "seconds": [1.5, 1.0, 1.0],
}
SETTINGS = {"epochs": 3, "seed": 0}


def a_run(folder, finished):
    """The files of a run of three epochs."""
    files = RunFiles.of(folder, "run")
    write_history(files.history, HISTORY)
    files.curves.write_text("curves")
    started = "2026-01-02T00:00:00"
    write_result(files.result, {"settings": SETTINGS, "started": started, "finished": finished})
    return files


def test_history_survives_the_csv(tmp_path):
    write_history(tmp_path / "run.csv", HISTORY)
    assert read_history(tmp_path / "run.csv") == HISTORY
    assert read_history(tmp_path / "run.csv", epochs=2)["train_loss"] == [2.0, 1.5]


def test_csv_that_lacks_epochs_is_refused(tmp_path):
    write_history(tmp_path / "run.csv", HISTORY)
    with pytest.raises(UsageError, match="lacks some of the 4 epochs"):
        read_history(tmp_path / "run.csv", epochs=4)


def test_no_csv_is_an_empty_history(tmp_path):
    assert read_history(tmp_path / "run.csv") == {"epoch": []}


def test_result_survives_the_json(tmp_path):
    assert read_result(tmp_path / "run.json") is None
    written = {"settings": SETTINGS, "finished": None, "test_accuracy": 12.5}
    write_result(tmp_path / "run.json", written)
    assert read_result(tmp_path / "run.json") == written


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 3}', '{"settings": {}}'])
def test_foreign_json_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match="not the result of a run"):
        read_result(tmp_path / "run.json")


def test_interrupted_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), records.replace_when_complete(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_was_just_writing_is_removed(tmp_path):
    files = a_run(tmp_path, None)
    (tmp_path / ".run.checkpoint.123.keras").write_text("half")
    (tmp_path / ".other.123.json").write_text("of another run")
    remove_partial_files(files)
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.csv", "run.json", "run.png", ".other.123.json"
    }  # fmt: skip


def test_unfinished_run_is_only_gone_on_with(tmp_path):
    files = a_run(tmp_path, None)
    files.checkpoint.write_text("checkpoint")
    with pytest.raises(UsageError, match=r"finished 3 of 3 epochs: go on with --resume"):
        find_earlier_run(files, SETTINGS, resume=False)
    assert find_earlier_run(files, SETTINGS, resume=True)["settings"] == SETTINGS


def test_other_settings_are_named(tmp_path):
    files = a_run(tmp_path, None)
    with pytest.raises(UsageError, match=r"epochs was 3, not 4; limit was None, not 20") as refusal:
        find_earlier_run(files, {"epochs": 4, "seed": 0, "limit": 20}, resume=True)
    assert "seed" not in str(refusal.value)


def test_nothing_to_resume(tmp_path):
    files = RunFiles.of(tmp_path, "run")
    assert find_earlier_run(files, SETTINGS, resume=False) is None
    with pytest.raises(UsageError, match="nothing to resume"):
        find_earlier_run(files, SETTINGS, resume=True)


def test_finished_run_is_archived(tmp_path, capsys):
    files = a_run(tmp_path, "2026-01-02T03:04:05")
    archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    assert [path.name for path in tmp_path.iterdir()] == ["earlier"]
    for suffix in ("csv", "json", "png"):
        assert (tmp_path / "earlier" / f"run-2026-01-02T030405.{suffix}").exists()
    assert "was moved to" in capsys.readouterr().out


def test_run_without_an_epoch_blocks_nothing_and_leaves_nothing(tmp_path):
    files = RunFiles.of(tmp_path, "run")
    write_result(files.result, {"settings": SETTINGS, "started": "now", "finished": None})
    archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_whatever_has_the_names_of_a_run_is_archived(tmp_path):
    files = a_run(tmp_path, None)
    files.result.unlink()
    files.checkpoint.write_text("checkpoint")
    archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    assert [path.name for path in tmp_path.iterdir()] == ["earlier"]
    suffixes = sorted(path.suffix for path in (tmp_path / "earlier").iterdir())
    assert suffixes == [".csv", ".keras", ".png"]


def test_each_seed_but_0_has_a_folder(tmp_path):
    assert RunFiles.of(tmp_path, "run").result == tmp_path / "run.json"
    assert RunFiles.of(tmp_path, "run", seed=3).result == tmp_path / "seed_3" / "run.json"


def test_file_is_on_the_disk_before_it_replaces_the_earlier_one(tmp_path, monkeypatch):
    order = []

    def note(name, function):
        def noted(*arguments):
            order.append(name)
            return function(*arguments)

        return noted

    monkeypatch.setattr(records.os, "fsync", note("fsync", records.os.fsync))
    monkeypatch.setattr(records.os, "replace", note("replace", records.os.replace))
    with records.replace_when_complete(tmp_path / "run.json") as temporary:
        temporary.write_text("whole")
    assert order == ["fsync", "replace", "fsync"]


def test_accuracy_is_told_with_what_is_special_about_it():
    assert accuracy_line(73.5) == "> 73.500"
    assert accuracy_line(73.5, "", None) == "> 73.500"
    assert accuracy_line(8, "on the sample", "", "half") == "> 8.000 (on the sample; half)"


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        ({"sample": False}, ""),
        ({"sample": False, "limit": 1000}, "on 1,000 training images of CIFAR-10"),
        ({"sample": True, "limit": None}, "on the sample of CIFAR-10"),
        ({"sample": True, "limit": 20}, "on 20 training images of the sample of CIFAR-10"),
    ],
)
def test_remark_on_images_that_are_not_all_of_cifar10(sample, options, remark):
    official = sample._replace(sha256=ARRAYS_SHA256)
    assert remark_on_data(official, Namespace(**options)) == remark


def test_remark_on_images_of_the_users_own(sample):
    remark = remark_on_data(sample, Namespace(sample=False, limit=None))
    assert remark == "on images that are not the official CIFAR-10"


def test_runs_that_stopped_early_are_told_from_those_that_did_not():
    told = "stopped early, after 2 of 3 epochs"
    assert stopped_early({"epochs_trained": 2, "settings": SETTINGS}) == told
    assert stopped_early({"epochs_trained": 3, "settings": SETTINGS}) == ""
    assert stopped_early({"settings": SETTINGS}) == ""  # of a version that did not count them
