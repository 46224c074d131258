import json
import os
import sys

from conftest import BLUE, ORANGE, assert_refused, call, colours
from experiments import load_experiment
from machinery import curves
from machinery.records import write_history
from test_records import HISTORY

import matplotlib.pyplot as plt
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
        "training_petaflop": 1.25,
    }  # fmt: skip
    if fields.get("finished", True):
        recorded["epochs_trained"] = len(history["epoch"])
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


def cells(folder, *arguments, columns=10):
    """The rows of the table for README.md, by their first column."""
    ended = call("compare.py", "--markdown", *arguments, cwd=folder)
    assert ended.code == 0, ended.errors
    lines = [line[2:-2].split(" | ") for line in ended.output.splitlines()]
    assert {len(line) for line in lines} == {columns}
    return {first: others for first, *others in lines[2:]}


@pytest.mark.parametrize(("cores", "told"), [(1, "1 core"), (2, "2 cores")])
def test_markdown_has_what_it_takes_to_repeat_a_row(tmp_path, cores, told):
    hardware = {"processor": "a processor", "cores": cores, "gpus": []}
    settings = {"epochs": 3, "mixed_precision": True, "validation": "holdout", "limit": 50}
    history = {name.replace("test", "validation"): HISTORY[name] for name in HISTORY}
    fields = {"hardware": hardware, "remark": "on 50 images"}
    write_run(tmp_path / "runs", history=history, settings=settings, **fields)
    assert cells(tmp_path) == {
        "`run`": [
            "Dropout and augmentation together: the dropout of dropout, the images of augmentation",
            "3 of 200", "85.88 %", "41.00 % (on 50 images)", "1", "1.2 s", "bfloat16",
            f"a processor, {told}",
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


def test_repeating_command_names_pictures_of_the_users_own(tmp_path):
    data = {"source": "my pictures", "sha256": {"x_train": "1"}, "image_size": 64}
    write_run(tmp_path / "runs", dataset=data)
    (row,) = cells(tmp_path).values()
    assert row[-1] == (
        "`python experiments/dropout_augmentation.py --data 'my pictures' --image-size 64 "
        "--epochs 3 --no-mixed-precision`"
    )


@pytest.mark.parametrize("kept", [0, 2])
def test_finished_run_that_has_lost_its_history_is_left_out_by_name(tmp_path, kept):
    write_run(tmp_path / "runs", "whole")
    lost = {name: values[:kept] for name, values in HISTORY.items()}
    write_run(tmp_path / "runs", "lost", history=lost, epochs_trained=3)
    if not kept:
        (tmp_path / "runs" / "lost.csv").unlink()
    ended = call("compare.py", cwd=tmp_path)
    assert "Left out: runs/lost.csv lacks some of the 3 epochs that are done" in ended.errors
    assert list(rows(ended.output)) == ["whole"]


def test_several_seeds_are_a_row_with_their_mean_and_their_number(tmp_path):
    for seed, accuracy in ((0, 10.0), (1, 12.0), (2, 17.0)):
        settings = {"seed": seed}
        folder = tmp_path / "runs" / f"seed_{seed}" if seed else tmp_path / "runs"
        write_run(folder, settings=settings, test_accuracy=accuracy)
    (row,) = cells(tmp_path).values()
    assert row[3:5] == ["13.00 ± 8.96 %", "3"]
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


def test_runs_on_other_images_are_no_seeds_of_one_row_and_no_pair(tmp_path):
    remark = "on images that are not the official CIFAR-10"
    for name, seed, kind in (("a", 0, "x"), ("a", 1, "y"), ("b", 1, "x")):
        folder = tmp_path / "runs" / f"seed_{seed}" if seed else tmp_path / "runs"
        data = {"sha256": {"x_train": kind}}
        write_run(folder, name, settings={"seed": seed}, remark=remark, dataset=data)
    ended = call("compare.py", cwd=tmp_path)
    assert "seeds)" not in ended.output and ended.output.count("\na ") == 2
    ended = call("compare.py", "--against", "b", cwd=tmp_path)
    assert ended.output.count("no pair") == 2


def test_experiment_without_a_docstring_is_shown(tmp_path, monkeypatch):
    """As all are with `python -OO`."""
    write_run(tmp_path / "runs", settings={"experiment": "dropout"})
    monkeypatch.setattr(load_experiment("dropout").define_model, "__doc__", None)
    monkeypatch.setattr(sys.modules["experiments.dropout"], "__doc__", None)
    (row,) = cells(tmp_path).values()
    assert row[0] == "-"


def test_empty_name_is_no_reference(tmp_path):
    write_run(tmp_path / "runs")
    assert_refused(call("compare.py", "--against", "", cwd=tmp_path), "--against : there is no run")


def test_markdown_of_an_experiment_that_is_not_ours_claims_nothing(tmp_path):
    write_run(tmp_path / "runs", settings={"experiment": "mine"}, published_accuracy=None)
    (row,) = cells(tmp_path).values()
    assert row[:3] == ["-", "3 of ?", "-"] and row[-1] == "-"


def test_pictures_have_a_colour_for_each_run(tmp_path):
    write_run(tmp_path / "runs", "one")
    write_run(tmp_path / "runs", "two", test_accuracy=50.0)
    ended = call("compare.py", "--out", "pictures", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    for picture in ("compare.png", "compare_loss.png", "compare_time.png"):
        assert {BLUE, ORANGE} <= colours(tmp_path / "pictures" / picture)
        assert f"Picture: pictures/{picture}" in ended.output


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Run compare.py on all folders here; return the figures' axes and the texts of their legends.

    They are read from the figures before these are closed.
    """
    figures = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))

    def draw():
        folders = [path.name for path in sorted(tmp_path.iterdir()) if path.is_dir()]
        ended = call("compare.py", *folders, "--out", "pictures", cwd=tmp_path)
        assert ended.code == 0, ended.errors
        legends = [figure.legends[0].get_texts() for figure in figures]
        texts = [[" ".join(text.get_text().split()) for text in legend] for legend in legends]
        return [figure.axes[0] for figure in figures], texts

    yield draw
    for figure in figures:
        plt.close(figure)


def scaled(factor):
    """The history of a run that learns better or worse."""
    learned = {name: [factor * value for value in HISTORY[name]] for name in HISTORY}
    return learned | {"epoch": HISTORY["epoch"], "seconds": HISTORY["seconds"]}


def test_legends_are_in_the_order_of_the_curves_ends(tmp_path, drawn):
    for name, factor in (("worst", 0.5), ("best", 1.5), ("middle", 1)):
        write_run(tmp_path / "runs", name, scaled(factor))
    _, (accuracy, loss, time) = drawn()
    assert accuracy == time == ["61.50 best", "41.00 middle", "20.50 worst"]
    assert loss == ["2.55 best", "1.70 middle", "0.85 worst"]


def test_label_that_begins_with_an_underscore_is_in_the_legend(tmp_path, drawn):
    write_run(tmp_path / "_x", history={"epoch": []}, finished=None)
    write_run(tmp_path / "y")
    _, legends = drawn()
    assert legends == [[f"{end} y/run", "_x/run (unfinished, go on with --resume)"]
                       for end in ("41.00", "1.70", "41.00")]  # fmt: skip


@pytest.mark.parametrize(("seeds", "lines"), [(2, 2), (3, 1)])
def test_three_seeds_are_a_band_and_fewer_are_lines(tmp_path, drawn, seeds, lines):
    for seed in range(seeds):
        write_run(tmp_path / f"{seed}", history=scaled((1 + seed) / 2), settings={"seed": seed})
    axes, legends = drawn()
    assert [len(panel.lines) for panel in axes[:2]] == [lines] * 2
    assert [len(panel.collections) for panel in axes] == [seeds // 3] * 3
    assert [len(legend) for legend in legends] == [1] * 3
    if seeds == 3:
        assert axes[0].lines[0].get_ydata().tolist() == [32, 40, 41]
        edge = axes[0].collections[0].get_paths()[0].vertices
        last_epoch = edge[edge[:, 0] == 3]
        assert (last_epoch[:, 1].min(), last_epoch[:, 1].max()) == (20.5, 61.5)


def test_band_ends_with_the_first_run_that_ends(tmp_path, drawn):
    for seed in range(3):
        history = {name: values[: 2 + (seed > 0)] for name, values in HISTORY.items()}
        write_run(tmp_path / f"{seed}", history=history, settings={"seed": seed})
    axes, _ = drawn()
    assert [len(panel.lines[0].get_xdata()) for panel in axes] == [2, 2, 2]


PLAIN, PENALTY = "cross-entropy", "cross-entropy + penalty for weights"


@pytest.mark.parametrize(
    ("losses", "axis", "legend"),
    [
        ([PENALTY, PENALTY], PENALTY, ["0.85 b", "1.70 a"]),
        ([PLAIN, PENALTY], "loss that the run was trained with", [f"0.85 b, {PENALTY}", "1.70 a"]),
        ([None, PENALTY], "loss that the run was trained with", [f"0.85 b, {PENALTY}", "1.70 a"]),
        ([None, PLAIN], "loss that the run was trained with", ["0.85 b", "1.70 a"]),
        ([None, None], "loss that the run was trained with", ["0.85 b", "1.70 a"]),
    ],
)
def test_loss_is_called_what_it_is(tmp_path, drawn, losses, axis, legend):
    for name, factor, loss in zip("ab", (1, 0.5), losses, strict=True):
        write_run(tmp_path / "runs", name, scaled(factor), **({"loss": loss} if loss else {}))
    axes, legends = drawn()
    assert axes[1].get_ylabel() == axis
    assert sorted(legends[1]) == legend


def test_axes_say_what_is_plotted(tmp_path, drawn):
    write_run(tmp_path / "runs", loss=PLAIN)
    axes, _ = drawn()
    assert [(panel.get_xlabel(), panel.get_ylabel()) for panel in axes] == [
        ("epoch", "accuracy (%)"),
        ("epoch", PLAIN),
        ("training time, evaluations included (minutes); star: result of the run", "accuracy (%)"),
    ]


def write_folds(folder, numbers, seed=0):
    for number in numbers:
        history = {n.replace("test", "validation"): v for n, v in scaled(number / 2).items()}
        settings = {"fold": f"{number}/3", "seed": seed}
        place = folder / f"fold_{number}_of_3"
        write_run(place, history=history, settings=settings, fold_accuracy=20.5 * number)


def test_folds_are_a_row_with_their_accuracy(tmp_path, drawn):
    write_folds(tmp_path / "runs", (1, 2, 3))
    axes, _ = drawn()
    assert [(len(panel.lines), len(panel.collections)) for panel in axes] == [(1, 1)] * 3
    assert axes[0].lines[0].get_linestyle() == "--"
    (row,) = rows(call("compare.py", "runs", cwd=tmp_path).output).values()
    assert "run (3 folds)" in row and " 41.00 %  20.50  80.53 " in row
    assert row.endswith("on the folds held out, not on the test images")
    (row,) = cells(tmp_path).values()
    assert row[3].startswith("41.00 ± 80.53 % (on the folds held out") and row[4] == "3 of 3 folds"
    assert row[-1].startswith("`for i in 1 2 3; do") and row[-1].endswith(" --fold $i/3; done`")


def test_folds_that_are_missing_and_other_seeds_are_told_apart(tmp_path):
    write_folds(tmp_path / "runs", (1, 3))
    write_folds(tmp_path / "runs/seed_1", (1, 2, 3), seed=1)
    write_run(tmp_path / "runs")
    output = call("compare.py", cwd=tmp_path).output
    assert output.count("run (2 of 3 folds)") == output.count("run (3 folds)") == 1
    assert "\nrun   " in output


def test_what_is_no_run_is_left_out_and_the_others_are_shown(tmp_path):
    write_run(tmp_path / "runs")
    write_run(tmp_path / "runs", "held", settings={"validation": "holdout"})  # but no such columns
    write_run(tmp_path / "runs", "endless", {**HISTORY, "seconds": [1, 1, float("inf")]})
    (tmp_path / "runs" / "loop.json").symlink_to("loop.json")
    (tmp_path / "runs" / "gone.json").symlink_to("nowhere.json")
    ended = call("compare.py", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert list(rows(ended.output)) == ["run"]
    for name in ("held.json", "endless.csv", "loop.json"):
        assert f"Left out: runs/{name}: " in ended.errors


def test_result_with_a_fold_that_is_none_is_left_out(tmp_path):
    write_run(tmp_path / "runs")
    write_run(tmp_path / "runs", "odd", settings={"fold": "9/3"})
    assert "Left out: runs/odd.json" in call("compare.py", cwd=tmp_path).errors


def write_seeds(folder, name, accuracies, **settings):
    for seed, accuracy in enumerate(accuracies):
        place = folder / f"seed_{seed}" if seed else folder
        write_run(place, name, settings={"seed": seed, **settings}, test_accuracy=accuracy)


def test_differences_to_a_row_are_those_of_pairs(tmp_path):
    """They may be clear where the accuracies themselves overlap."""
    write_seeds(tmp_path / "runs", "one", [50.0, 60.0, 70.0])
    write_seeds(tmp_path / "runs", "two", [51.0, 61.2, 71.1])
    write_seeds(tmp_path / "runs", "three", [53.0, 57.0, 70.5])
    write_seeds(tmp_path / "runs", "four", [49.0], limit=None)
    write_seeds(tmp_path / "runs", "five", [49.0], epochs=5)
    write_seeds(tmp_path / "runs", "six", [49.0], mixed_precision=True)
    ended = call("compare.py", "--against", "one", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    told = {name: row.partition(" % ")[2].partition(" % ")[2] for name, row in
            rows(ended.output).items()}  # fmt: skip
    assert "  -  " in told["one"]
    assert "  +1.10 ± 0.25   " in told["two"]
    assert "  +0.17 ± 7.49 (within noise)  " in told["three"]
    assert "  -1.00 (one pair)  " in told["four"]
    assert "  no pair  " in told["five"] and "  no pair  " in told["six"]
    table = cells(tmp_path, "--against", "one", columns=11)
    assert table["`two`"][4] == "+1.10 ± 0.25"


@pytest.mark.parametrize(
    ("name", "told"),
    [("mine", "there is no run of this name, but twice"), ("twice", "2 rows of the table have")],
)
def test_name_that_is_none_or_two_is_refused(tmp_path, name, told):
    write_run(tmp_path / "runs", "twice")
    write_run(tmp_path / "runs/seed_1", "twice", settings={"limit": 50})
    ended = call("compare.py", "--against", name, cwd=tmp_path)
    assert_refused(ended, f"--against {name}: {told}")


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


def test_seeds_that_stopped_early_at_different_times_are_told_together(tmp_path):
    for seed, trained in enumerate((2, 3, 1)):
        short = {name: values[:trained] for name, values in HISTORY.items()}
        place = tmp_path / "runs" / (f"seed_{seed}" if seed else "")
        settings = {"seed": seed, "experiment": "early_stopping"}
        write_run(place, history=short, settings=settings, training_petaflop=float(trained))
    row = rows(call("compare.py", cwd=tmp_path).output)["run"]
    assert "  1 to 3 of 3  " in row and "  2.0000  " in row
    assert row.endswith("stopped early, after 1 to 3 of 3 epochs")
    assert cells(tmp_path)["`run`"][1] == "1 to 3 of 100"


def test_markdown_has_a_time_for_each_processor(tmp_path):
    for seed, (cores, seconds) in enumerate(((2, 10.0), (1, 20.0), (1, 22.0))):
        place = tmp_path / "runs" / (f"seed_{seed}" if seed else "")
        hardware = {"processor": "a processor", "cores": cores, "gpus": []}
        history = HISTORY | {"seconds": [seconds] * 3}
        write_run(place, history=history, settings={"seed": seed}, hardware=hardware)
    row = cells(tmp_path)["`run`"]
    assert "10.0 s; 21.0 s" in row and "a processor, 2 cores; a processor, 1 core" in row


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
    assert "run (3 seeds)" in row and "13.00 %  3.61   8.96 " in row
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


def test_run_that_is_missing_is_made_where_it_was_looked_for(tmp_path):
    (tmp_path / "of mine").mkdir()
    ended = call("compare.py", "of mine", cwd=tmp_path)
    assert_refused(ended, "baseline1.py --sample --out 'of mine'` makes one")


def test_seeds_in_folders_of_their_own_are_found_and_counted_once(tmp_path):
    write_run(tmp_path / "runs")
    for seed in (1, 2):
        write_run(tmp_path / "runs" / f"seed_{seed}", settings={"seed": seed})
    for folders in ([], ["runs", "runs/seed_1"]):
        (row,) = rows(call("compare.py", *folders, cwd=tmp_path).output).values()
        assert "run (3 seeds)" in row


def test_folder_of_a_seed_that_may_not_be_entered_is_left_out_by_name(tmp_path, monkeypatch):
    for seed in (1, 2):
        write_run(tmp_path / f"runs/seed_{seed}", settings={"seed": seed})
    listdir = os.listdir

    def refuse(path):
        if str(path).endswith("seed_1"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    ended = call("compare.py", cwd=tmp_path)
    assert ended.code == 0 and "Left out: runs/seed_1: Permission denied" in ended.errors
    assert list(rows(ended.output)) == ["run"]


def test_folder_whose_files_may_not_be_looked_at_stops_no_other(tmp_path, monkeypatch):
    """It may be listed: read, in the words of Unix, but not execute."""
    write_run(tmp_path / "runs")
    write_run(tmp_path / "runs" / "seed_1")
    write_run(tmp_path / "runs" / "seed_1" / "fold_1_of_5")
    stat = os.stat

    def refuse(path, **options):
        if "seed_1/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    ended = call("compare.py", cwd=tmp_path)
    assert ended.code == 0
    for name in ("run.json", "fold_1_of_5"):
        assert f"Left out: runs/seed_1/{name}: Permission denied" in ended.errors
    assert list(rows(ended.output)) == ["run"]


def test_what_a_killed_process_was_just_writing_is_no_run(tmp_path):
    write_run(tmp_path / "runs")
    write_run(tmp_path / "runs", name=".run.123")
    assert list(rows(call("compare.py", cwd=tmp_path).output)) == ["run"]


def test_names_of_files_do_not_control_the_terminal(tmp_path):
    write_run(tmp_path / "runs")
    for suffix in (".json", ".csv"):
        (tmp_path / f"runs/run{suffix}").rename(tmp_path / f"runs/a\x1b[2J{suffix}")
    (tmp_path / "runs/b\x1b[2J.json").write_text("damaged")
    ended = call("compare.py", cwd=tmp_path)
    assert list(rows(ended.output)) == [r"a\x1b[2J"]
    assert r"Left out: runs/b\x1b[2J.json: damaged" in ended.errors
    assert "\x1b" not in ended.output + ended.errors


def test_more_epochs_than_usual_are_not_of_the_usual(tmp_path):
    history = {name: 40 * values for name, values in HISTORY.items()} | {"epoch": [*range(1, 121)]}
    settings = {"experiment": "baseline1", "epochs": 120}
    write_run(tmp_path / "runs", history=history, settings=settings)
    assert cells(tmp_path)["`run`"][1] == "120"
