import json

from conftest import BLUE, ORANGE, assert_refused, call, colours
from machinery.records import write_history
from test_records import HISTORY

import pytest

SETTINGS = {
    "experiment": "dropout_augmentation", "epochs": 3, "batch_size": 64, "seed": 0,
    "mixed_precision": False, "validation": "test", "sample": False, "limit": None,
}  # fmt: skip


def write_run(folder, name="run", history=HISTORY, settings=None, **fields):
    """Leave the files of a run of three epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    recorded = {
        "name": name, "test_accuracy": 41.0, "published_accuracy": 85.88, "remark": "",
        "settings": SETTINGS | (settings or {}), "dataset": {},
        "started": "2026-01-02T00:00:00", "finished": "2026-01-02T03:04:05",
        "epochs_trained": 3, "training_petaflop": 1.25,
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(recorded | fields))
    write_history(folder / f"{name}.csv", history)


def rows(output):
    """The table's rows by their first column."""
    lines = output[: output.index("Published: by")].splitlines()[1:]
    return {line.split()[0]: line for line in lines if not line.startswith("Left out")}


def test_table_has_what_is_published_and_measured(tmp_path):
    write_run(tmp_path / "runs")
    ended = call("compare.py", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    row = rows(ended.output)["run"].split()
    # 3.5 seconds; the standard deviation needs more runs than one.
    assert row == ["run", "85.88", "%", "41.00", "%", "3", "0:04", "1.2500"]


def cells(folder, *arguments):
    """The rows of the table for README.md, by their first column."""
    ended = call("compare.py", "--markdown", *arguments, cwd=folder)
    assert ended.code == 0, ended.errors
    lines = [line[2:-2].split(" | ") for line in ended.output.splitlines()]
    assert {len(line) for line in lines} == {10}
    return {first: others for first, *others in lines[2:]}


HARDWARE = {"processor": "a processor", "cores": 2, "gpus": []}


def test_markdown_has_what_it_takes_to_repeat_a_row(tmp_path):
    settings = {"epochs": 3, "mixed_precision": True, "validation": "holdout", "limit": 50}
    write_run(tmp_path / "runs", settings=settings, hardware=HARDWARE, remark="on 50 images")
    assert cells(tmp_path) == {
        "`run`": [
            "Dropout and augmentation together: the dropout of dropout, the images of augmentation",
            "3 of 200", "85.88 %", "41.00 % (on 50 images)", "1", "1.2 s", "bfloat16",
            "a processor, 2 cores",
            "`python experiments/dropout_augmentation.py --epochs 3 --mixed-precision "
            "--validation holdout --limit 50`",
        ]
    }  # fmt: skip
    assert not (tmp_path / "runs/compare.png").exists()


def test_repeating_command_says_only_what_is_not_usual(tmp_path):
    usual = {"epochs": 20, "batch_size": 16, "sample": True, "seed": 3}
    write_run(tmp_path / "runs", settings=usual)
    (row,) = cells(tmp_path).values()
    repeat = "python experiments/dropout_augmentation.py --sample --no-mixed-precision --seed 3"
    assert row[-1] == f"`{repeat}`"


def test_several_seeds_are_a_row_with_their_mean_and_their_number(tmp_path):
    for seed, accuracy in ((0, 10.0), (1, 12.0), (2, 17.0)):
        settings = {"seed": seed}
        folder = tmp_path / "runs" / f"seed_{seed}" if seed else tmp_path / "runs"
        write_run(folder, settings=settings, test_accuracy=accuracy)
    (row,) = cells(tmp_path).values()
    assert row[3:5] == ["13.00 ± 3.61 %", "3"]
    assert row[-1] == (
        "`for seed in 0 1 2; do python experiments/dropout_augmentation.py --epochs 3 "
        "--no-mixed-precision --seed $seed; done`"
    )


def test_markdown_knows_the_variants_of_the_speed_run(tmp_path):
    settings = {"experiment": "speedrun_94_without_tta", "epochs": 13, "batch_size": 512}
    write_run(tmp_path / "runs", settings=settings)
    (row,) = cells(tmp_path).values()
    assert row[0] == "speedrun with --target 94 --without tta"
    assert "`python experiments/speedrun.py --target 94 --without tta --no-mixed-" in row[-1]


def test_markdown_of_an_experiment_that_is_not_ours_claims_nothing(tmp_path):
    write_run(tmp_path / "runs", settings={"experiment": "mine"}, published_accuracy=None)
    (row,) = cells(tmp_path).values()
    assert row[:3] == ["-", "3 of ?", "-"] and row[-1] == "-"


def test_pictures_have_a_colour_for_each_run(tmp_path):
    write_run(tmp_path / "runs", "one")
    write_run(tmp_path / "runs", "two", test_accuracy=50.0)
    ended = call("compare.py", "--out", "pictures", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    for picture in ("compare.png", "compare_time.png"):
        assert {BLUE, ORANGE} <= colours(tmp_path / "pictures" / picture)
        assert f"Picture: pictures/{picture}" in ended.output


def test_run_without_a_published_accuracy(tmp_path):
    write_run(tmp_path / "runs", published_accuracy=None)
    row = rows(call("compare.py", cwd=tmp_path).output)["run"].split()
    assert row[:4] == ["run", "-", "41.00", "%"]


def test_run_that_stopped_early_is_marked(tmp_path):
    short = {name: values[:2] for name, values in HISTORY.items()}
    write_run(tmp_path / "runs", history=short, epochs_trained=2)
    row = rows(call("compare.py", cwd=tmp_path).output)["run"]
    assert "  2 of 3  " in row
    assert row.endswith("stopped early, after 2 of 3 epochs")


def test_unfinished_run_is_marked(tmp_path):
    short = {name: values[:1] for name, values in HISTORY.items()}
    fields = {"finished": None, "test_accuracy": None, "remark": "on the sample of CIFAR-10"}
    write_run(tmp_path / "runs", history=short, **fields)
    row = rows(call("compare.py", cwd=tmp_path).output)["run"]
    assert "  1 of 3  " in row and " - " in row
    assert row.endswith("unfinished, go on with --resume; on the sample of CIFAR-10")


def test_run_that_was_killed_in_its_first_epoch_is_shown(tmp_path):
    fields = {"finished": None, "test_accuracy": None, "training_petaflop": None}
    write_run(tmp_path / "runs", history={"epoch": []}, **fields)
    ended = call("compare.py", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert "  0 of 3  " in rows(ended.output)["run"]


def test_holdout_is_drawn_from_its_validation_images(tmp_path):
    history = {name.replace("test", "validation"): values for name, values in HISTORY.items()}
    write_run(tmp_path / "runs", history=history, settings={"validation": "holdout"})
    ended = call("compare.py", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert BLUE in colours(tmp_path / "runs" / "compare.png")


def test_runs_that_differ_only_in_the_seed_are_taken_together(tmp_path):
    for folder, seed, accuracy in (("a", 0, 10), ("b", 1, 12), ("c", 2, 17), ("d", 2, 18)):
        write_run(tmp_path / folder, settings={"seed": seed}, test_accuracy=accuracy)
    (row,) = rows(call("compare.py", "a", "b", "c", cwd=tmp_path).output).values()
    assert "run (3 seeds)" in row and "13.00 %  3.61" in row
    # c and d have the same seed
    assert list(rows(call("compare.py", "b", "c", "d", cwd=tmp_path).output)) == [
        "b/run", "c/run", "d/run"
    ]  # fmt: skip


def test_runs_come_in_the_tutorials_order_and_others_last(tmp_path):
    names = ("a_of_mine", "augmentation", "baseline1", "speedrun")
    for name in names:
        write_run(tmp_path / "runs", name, settings={"experiment": name})
    found = list(rows(call("compare.py", cwd=tmp_path).output))
    assert found == ["baseline1", "augmentation", "speedrun", "a_of_mine"]


def test_file_that_is_no_run_is_left_out_by_name(tmp_path):
    write_run(tmp_path / "runs")
    (tmp_path / "runs" / "notes.json").write_text("{}")
    ended = call("compare.py", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert "Left out: runs/notes.json: damaged or foreign (not the result of a run" in ended.errors


@pytest.mark.parametrize("make", [False, True])
def test_comparison_of_nothing_is_explained(tmp_path, make):
    if make:
        (tmp_path / "runs").mkdir()
    reason = "baseline1.py --sample" if make else "there is no folder runs"
    (tmp_path / "pictures").mkdir()
    assert_refused(call("compare.py", "--out", "pictures", cwd=tmp_path), reason)


def test_seeds_in_folders_of_their_own_are_found_and_counted_once(tmp_path):
    write_run(tmp_path / "runs")
    for seed in (1, 2):
        write_run(tmp_path / "runs" / f"seed_{seed}", settings={"seed": seed})
    for folders in ([], ["runs", "runs/seed_1"]):
        (row,) = rows(call("compare.py", *folders, cwd=tmp_path).output).values()
        assert "run (3 seeds)" in row
