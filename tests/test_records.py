import json
import tracemalloc
from argparse import Namespace

from data.dataset import CIFAR10_SHA256
from data.splits import Fold
from machinery.errors import UsageError
from machinery.records import (
    RunFiles,
    accuracy_line,
    archive_earlier_run,
    find_earlier_run,
    needed_changes,
    read_history,
    read_result,
    remark_on_data,
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
SETTINGS = {
    "experiment": "dropout", "epochs": 3, "batch_size": 64, "seed": 0, "mixed_precision": False,
    "validation": "test", "sample": False, "limit": None,
}  # fmt: skip
RESULT = {
    "name": "run", "test_accuracy": 12.5, "published_accuracy": None, "remark": "",
    "settings": SETTINGS, "dataset": {}, "started": "2026-01-02T00:00:00", "finished": None,
}  # fmt: skip


def a_run(folder, finished):
    """The files of a run of three epochs."""
    files = RunFiles.of(folder, "run")
    write_history(files.history, HISTORY)
    files.curves.write_text("curves")
    write_result(files.result, RESULT | {"finished": finished})
    return files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_history_survives_the_csv(tmp_path):
    write_history(tmp_path / "run.csv", HISTORY)
    assert read_history(tmp_path / "run.csv") == HISTORY
    assert read_history(tmp_path / "run.csv", epochs=2)["train_loss"] == [2.0, 1.5]


def test_history_survives_a_program_that_marks_its_encoding(tmp_path):
    write_history(tmp_path / "run.csv", HISTORY)
    (tmp_path / "run.csv").write_text((tmp_path / "run.csv").read_text(), encoding="utf-8-sig")
    assert read_history(tmp_path / "run.csv") == HISTORY


def test_only_a_loss_may_be_negative(tmp_path):
    history = HISTORY | {"train_loss": [-1.0, -2.0, -3.0]}
    write_history(tmp_path / "run.csv", history)
    assert read_history(tmp_path / "run.csv") == history


def test_no_csv_is_an_empty_history(tmp_path):
    assert read_history(tmp_path / "run.csv") == {"epoch": []}


def test_nothing_to_resume(tmp_path):
    files = RunFiles.of(tmp_path, "run")
    assert find_earlier_run(files, SETTINGS, resume=False) is None
    with pytest.raises(UsageError, match="nothing to resume"):
        find_earlier_run(files, SETTINGS, resume=True)


def test_each_seed_but_0_has_a_folder(tmp_path):
    assert RunFiles.of(tmp_path, "run").result == tmp_path / "run.json"
    assert RunFiles.of(tmp_path, "run", seed=3).result == tmp_path / "seed_3" / "run.json"
    fold = RunFiles.of(tmp_path, "run", seed=3, fold=Fold(1, 5))
    assert not set(RunFiles.of(tmp_path, "run", seed=3)) & set(RunFiles.of(tmp_path, "run", seed=4))
    assert fold.result == tmp_path / "seed_3" / "fold_1_of_5" / "run.json"
    assert fold.logs == tmp_path / "tensorboard" / "seed_3" / "fold_1_of_5" / "run"


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
    official = sample._replace(sha256=CIFAR10_SHA256)
    assert remark_on_data(official, Namespace(**options)) == remark


def test_remark_on_images_of_the_users_own(sample):
    remark = remark_on_data(sample, Namespace(sample=False, limit=None))
    assert remark == "on images that are not the official CIFAR-10"


def test_runs_that_stopped_early_are_told_from_those_that_did_not():
    told = "stopped early, after 2 of 3 epochs"
    assert stopped_early({"epochs_trained": 2, "settings": SETTINGS}) == told
    assert stopped_early({"epochs_trained": 3, "settings": SETTINGS}) == ""
    assert stopped_early({"settings": SETTINGS}) == ""  # of a version that did not count them


def test_result_survives_the_json(tmp_path):
    assert read_result(tmp_path / "run.json") is None
    write_result(tmp_path / "run.json", RESULT)
    assert read_result(tmp_path / "run.json") == RESULT


def test_result_without_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(tmp_path / "run.json", RESULT | {"test_loss": float("nan")})
    assert names(tmp_path) == []


DAMAGED = ["", "[]", "{}", "7", "{", "[" * 100_000, "\0", "\xff", json.dumps(RESULT)[:-9]]
INCOMPLETE = [{**RESULT, "settings": settings} for settings in (3, {}, {**SETTINGS, "epochs": "3"})]
INCOMPLETE += [{key: value for key, value in RESULT.items() if key != name} for name in RESULT]
ODD = {
    "test_accuracy": "high", "published_accuracy": 10**400, "remark": None, "name": 7,
    "started": "\x1b[2J", "finished": "../../2026-01-02",
    "training_petaflop": "abc", "epochs_trained": 1.5, "fold_accuracy": True,
    "hardware": {"gpus": 5}, "loss": 6000 * "x", "dataset": {"sha256": 1},
}  # fmt: skip
ODD_SETTINGS = {"limit": [1], "sample": {}, "mixed_precision": [], "batch_size": None, "fold": 1}
INCOMPLETE += [{**RESULT, name: value} for name, value in ODD.items()]
INCOMPLETE += [{**RESULT, name: value} for name, value in [("test_accuracy", 4100.0),
    ("test_accuracy", -1), ("fold_accuracy", 100.1), ("epochs_trained", -3)]]  # fmt: skip
INCOMPLETE += [
    {**RESULT, "settings": {**SETTINGS, name: value}} for name, value in ODD_SETTINGS.items()
]


@pytest.mark.parametrize("content", [*DAMAGED, *map(json.dumps, INCOMPLETE)])
def test_damaged_and_foreign_json_is_refused_by_name(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"run\.json: damaged or foreign \("):
        read_result(tmp_path / "run.json")


HEAD = ",".join(HISTORY)
DAMAGED_HISTORIES = [
    f"{HEAD}\n1,x,1,1,1,1\n", f"{HEAD}\n1\n", f"{HEAD}\n1,1,1,1,1,1,1\n", f"{HEAD}\n2,1,1,1,1,1\n",
    f"{HEAD}\n1,1,1,1,1,1\n1,1,1,1,1,1\n", f"{HEAD}\n1.5,1,1,1,1,1\n", "epoch,seconds\n1,1\n",
    f"{HEAD}\n1,1,1,1,1,nan\n", f"{HEAD}\n1,1,1,1,1,inf\n", f"{HEAD}\n1,1,1,1,1,1e200\n",
    f"{HEAD},test_loss\n1,1,1,1,1,1,1\n", "train_loss\n1\n",
    f"{HEAD}\n1,1,101,1,1,1\n", f"{HEAD}\n1,1,1,1,-1,1\n", f"{HEAD}\n1,1,1,1,1,-1\n",
    "", "\0\0\0\0", "\xff\xfe\n1", '"' * 200_001, "x" * 200_001,
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED_HISTORIES)
def test_damaged_and_foreign_csv_is_refused_by_name(tmp_path, content):
    (tmp_path / "run.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"run\.csv: damaged or foreign \("):
        read_history(tmp_path / "run.csv")


def test_csv_that_lacks_epochs_is_refused(tmp_path):
    write_history(tmp_path / "run.csv", HISTORY)
    with pytest.raises(UsageError, match="lacks some of the 4 epochs"):
        read_history(tmp_path / "run.csv", epochs=4)


# The run whose files are there already.


def test_unfinished_run_is_only_gone_on_with(tmp_path):
    files = a_run(tmp_path, None)
    files.checkpoint_before.write_text("checkpoint")
    with pytest.raises(UsageError, match=r"not finished: go on with --resume"):
        find_earlier_run(files, SETTINGS, resume=False)
    assert find_earlier_run(files, SETTINGS, resume=True)["settings"] == SETTINGS


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"epochs": 4}, "add --epochs 3"),
        ({"limit": 20}, "remove --limit"),
        ({"sample": True}, "remove --sample"),
        ({"mixed_precision": True}, "add --no-mixed-precision"),
        ({"validation": "holdout", "batch_size": 1}, "add --batch-size 64, add --validation test"),
        ({"experiment": "baseline3"}, "take the experiment dropout, not baseline3"),
    ],
)
def test_other_settings_are_refused_with_the_options_to_change(tmp_path, settings, change):
    files = a_run(tmp_path, None)
    with pytest.raises(UsageError) as refusal:
        find_earlier_run(files, {**SETTINGS, **settings}, resume=True)
    assert str(refusal.value).endswith(f"to go on, {change}")


def test_options_that_were_given_before_are_to_be_added(tmp_path):
    before = {**SETTINGS, "mixed_precision": True, "sample": True, "limit": 50}
    told = "add --mixed-precision, add --sample, add --limit 50"
    assert needed_changes(before, SETTINGS) == told


def test_damaged_result_is_archived_when_a_new_run_begins(tmp_path):
    files = a_run(tmp_path, None)
    files.result.write_text("{")
    files.checkpoint.write_text("checkpoint")
    with pytest.raises(UsageError, match=r"Without --resume a new run begins, and .*earlier"):
        find_earlier_run(files, SETTINGS, resume=True)
    archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    assert names(tmp_path) == ["earlier"] and len(names(tmp_path / "earlier")) == 4


def test_finished_run_is_archived_without_the_checkpoint_it_left(tmp_path, capsys):
    files = a_run(tmp_path, "2026-01-02T03:04:05")
    files.checkpoint.write_text("checkpoint")
    archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    assert names(tmp_path) == ["earlier"]
    date = "run-2026-01-02T030405"
    assert names(tmp_path / "earlier") == [f"{date}.csv", f"{date}.json", f"{date}.png"]
    told = capsys.readouterr().out
    assert f"Moved to {tmp_path / 'earlier'}: run.png, run.csv, run.json\n" in told


def test_archived_runs_of_the_same_second_do_not_replace_each_other(tmp_path):
    for _ in range(3):
        files = a_run(tmp_path, "2026-01-02T03:04:05")
        archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    assert len(names(tmp_path / "earlier")) == 9


def test_run_without_an_epoch_blocks_nothing_and_leaves_nothing(tmp_path):
    files = RunFiles.of(tmp_path, "run")
    write_result(files.result, RESULT)
    files.logs.mkdir(parents=True)
    archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    assert names(tmp_path) == ["run.json", "tensorboard"]
    assert names(tmp_path / "tensorboard") == []


def test_whatever_has_the_names_of_a_run_is_archived(tmp_path):
    files = a_run(tmp_path, None)
    files.result.unlink()
    files.checkpoint.write_text("checkpoint")
    archive_earlier_run(find_earlier_run(files, SETTINGS, resume=False), files)
    suffixes = sorted(path.suffix for path in (tmp_path / "earlier").iterdir())
    assert suffixes == [".csv", ".keras", ".png"] and names(tmp_path) == ["earlier"]


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ({"fold": "1/5"}, {}, "add --fold 1/5"),
        ({}, {"fold": "1/5"}, "remove --fold"),
        ({"fold": "1/5"}, {"fold": "2/5"}, "add --fold 1/5"),
    ],
)
def test_another_fold_is_another_run(before, now, changes):
    assert needed_changes(SETTINGS | before, SETTINGS | now) == changes


def test_rows_that_lack_columns_take_no_memory(tmp_path):
    columns = [*HISTORY, *(f"{number:x}" for number in range(20_000))]
    (tmp_path / "run.csv").write_text(",".join(columns) + "\n" + 1000 * "1\n")
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="more or fewer values than there are columns"):
            read_history(tmp_path / "run.csv")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
