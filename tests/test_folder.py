import io
import json
import os
import re
import resource
import shutil
import zipfile

from conftest import TINY, assert_refused, call, close_folder, colours, result, tiny_network, train
from data import download
from data import folder as data_folder
from data.dataset import validated
from data.download import find_dataset
from harness import Experiment, load_dataset
from machinery.errors import UsageError
from machinery.networks import Networks, find_models
from machinery.options import option_parser, parse_options
from test_cifar10 import encrypted, npz

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue things": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def picture(colour, shade=0, size=(40, 30)):
    """The bytes of a picture."""
    colour = tuple(max(0, value - shade) for value in colour)
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()


def files(counts, prefix=""):
    """The content of pictures by their names: of each colour as many as are counted."""
    return {
        f"{prefix}{name}/{number}.png": picture(COLOURS[name], number)
        for name, count in zip(COLOURS, counts, strict=False)
        for number in range(count)
    }


SPLIT = files((3, 4, 5), "train/") | {
    name.replace("train/", "test/"): picture((0, 0, 0), size=(size, 9))
    for size, name in enumerate(files((2, 1, 2), "train/"), 10)
}


def write(folder, content):
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_pictures_are_labelled_by_their_folders(tmp_path):
    dataset = find_dataset(write(tmp_path / "mine", SPLIT))
    assert dataset.class_names == ("blue things", "green", "red")
    assert np.bincount(dataset.y_train).tolist() == [3, 4, 5]
    assert np.bincount(dataset.y_test).tolist() == [2, 1, 2]
    assert dataset.x_train.shape == (12, 32, 32, 3)
    for image, label in zip(dataset.x_train, dataset.y_train, strict=True):
        assert image.reshape(-1, 3).max(axis=0).argmax() == (2, 1, 0)[label]


def test_file_that_is_called_like_an_official_one_does_not_make_the_folder_one(tmp_path):
    write(tmp_path, SPLIT | {"notes_batch_1.txt": b"from the garden"})
    assert find_dataset(str(tmp_path), image_size=8).class_names == tuple(COLOURS)


def test_a_fifth_of_each_class_is_set_aside_for_the_test(tmp_path):
    dataset = find_dataset(write(tmp_path / "mine", files((10, 20, 2))))
    assert np.bincount(dataset.y_train).tolist() == [8, 16, 1]
    assert np.bincount(dataset.y_test).tolist() == [2, 4, 1]
    again = find_dataset(tmp_path / "mine")
    assert dataset.sha256 == again.sha256


def test_pictures_that_are_added_later_leave_what_is_tested_on(tmp_path):
    """Otherwise, a model would be tested on what it was trained on."""
    before = find_dataset(write(tmp_path / "mine", files((25, 25))))
    new = {f"green/new {number}.png": picture((0, 90, number)) for number in range(2)}
    after = find_dataset(write(tmp_path / "mine", new))
    trained = {image.tobytes() for image in before.x_train}
    assert not any(image.tobytes() in trained for image in after.x_test)
    assert len(after.x_train) + len(after.x_test) == 52


def test_classes_that_are_named_like_a_split_in_other_letters_are_one(tmp_path):
    content = {
        name.replace("train/", "Training/").replace("test/", "TEST/"): data
        for name, data in SPLIT.items()
    }
    dataset = find_dataset(write(tmp_path / "mine", content))
    assert dataset.class_names == ("blue things", "green", "red")
    assert len(dataset.x_train) == 12 and len(dataset.x_test) == 5


def test_class_that_looks_like_python_is_one(tmp_path):
    content = {name.replace("green", "__pos__"): data for name, data in files((5, 5)).items()}
    assert find_dataset(write(tmp_path / "mine", content)).class_names == ("__pos__", "blue things")


def test_pictures_are_scaled_to_the_size_that_is_asked_for(tmp_path):
    dataset = find_dataset(write(tmp_path / "mine", SPLIT), image_size=64)
    assert dataset.x_train.shape == (12, 64, 64, 3)


def test_no_class_comes_first(tmp_path):
    dataset = find_dataset(write(tmp_path / "mine", files((30, 30))))
    assert 0 < dataset.y_train[:24].sum() < 24


def test_letters_that_are_written_in_two_ways_are_the_same(tmp_path):
    composed, decomposed = "train/caf\u00e9/", "test/cafe\u0301/"
    content = {
        f"{each}{number}.png": picture((number, shade, 0))
        for shade, each in enumerate((composed, decomposed, "train/tea/", "test/tea/"))
        for number in range(2)
    }
    dataset = find_dataset(write(tmp_path / "mine", content))
    assert dataset.class_names == ("caf\u00e9", "tea")


def test_there_may_be_more_classes_than_a_byte_can_count(tmp_path):
    content = {
        f"{split}/{label:05}/1.png": picture((label % 251, label // 251, shade), size=(8, 8))
        for shade, split in enumerate(("train", "test"))
        for label in range(1_100)
    }
    dataset = find_dataset(write_zip(tmp_path / "mine.zip", content))
    assert len(dataset.class_names) == 1_100 and dataset.class_names[-1] == "01099"
    assert sorted(dataset.y_train) == sorted(dataset.y_test) == list(range(1_100))
    images = zip(dataset.x_train[:, 0, 0].astype(int), dataset.y_train, strict=True)
    assert all(red + 251 * green == label for (red, green, _), label in images)


ZIPS = {
    "as they are": SPLIT,
    "with backslashes": {name.replace("/", "\\"): data for name, data in SPLIT.items()},
    "in one more folder": {f"my pictures/{name}": data for name, data in SPLIT.items()},
    "with a dot before": {f"./{name}": data for name, data in SPLIT.items()},
    "in one more folder, with hidden ones": {f"mine/{name}": data for name, data in SPLIT.items()}
    | {"__MACOSX/mine/train/x.png": b"x", ".thumbnails/large/red/x.png": SPLIT["train/red/0.png"]},
    "with an array": SPLIT | {"features.npy": b"x"},
    "with what macOS adds": SPLIT | {"__MACOSX/train/red/._1.png": b"x", "train/.DS_Store": b"x"},
}


@pytest.mark.parametrize("name", ZIPS)
def test_zip_of_folders_is_read_as_it_lies(tmp_path, name):
    zipped = find_dataset(write_zip(tmp_path / "mine.zip", ZIPS[name]))
    unzipped = find_dataset(write(tmp_path / "mine", SPLIT))
    assert zipped.sha256 == unzipped.sha256
    assert zipped.class_names == unzipped.class_names


def refusal(path, **options):
    with pytest.raises(UsageError) as raised:
        find_dataset(path, **options)
    return str(raised.value)


BAD = {
    "one class": (files((5,)), "the class blue things alone"),
    "no classes": ({"1.png": picture((0, 0, 0))}, "no classes"),
    "only test": (files((5, 5), "test/"), "has folders test: "),
    "more than train and test": (SPLIT | files((2, 2), "val/"), "has folders test, train, val"),
    "class only in train": (
        {name: data for name, data in SPLIT.items() if "test/green" not in name},
        "no pictures in test/green",
    ),
    "class only in test": (
        {name: data for name, data in SPLIT.items() if "train/green" not in name},
        "no pictures in train/green",
    ),
    "one picture of a class": (files((5, 1)), "no pictures in green (it needs two at least)"),
    "class with a long name": (
        files((5, 5)) | {f"{101 * 'x'}/{n}.png": picture((n, 0, 0)) for n in range(5)},
        "the class xxxxxxxxxxxxxxxxxxxx... has more than 100 characters",
    ),
    "class that can't be printed": (
        files((5, 5)) | {f"\x1b[2J/{number}.png": picture((number, 0, 0)) for number in range(5)},
        r"the class '\x1b[2J' has characters in its name that can't be printed",
    ),
    "few pictures": (
        files((5, 5)) | {"red/a.txt": b"a", "red/b.png": b"b"},
        "2 of 12 files are no pictures, for example",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_sense_is_refused_by_name(tmp_path, name):
    content, reason = BAD[name]
    for path in (write(tmp_path / "mine", content), write_zip(tmp_path / "mine.zip", content)):
        assert reason in refusal(path) and str(path) in refusal(path)


@pytest.mark.parametrize("form", [write, write_zip])
def test_each_picture_takes_limited_memory_and_all_together_what_they_need(
    tmp_path, monkeypatch, form
):
    limits, read, check = [], data_folder.read_image, data_folder.require_memory

    def limit(function):
        def call(*arguments):
            limits.append(resource.getrlimit(resource.RLIMIT_DATA)[0])
            return function(*arguments)

        return call

    monkeypatch.setattr(data_folder, "read_image", limit(read))
    monkeypatch.setattr(data_folder, "require_memory", limit(check))
    find_dataset(form(tmp_path / "mine.zip", SPLIT))
    assert limits[0] == resource.RLIM_INFINITY  # when room for all of them is asked for
    assert len(limits) == 1 + len(SPLIT) and resource.RLIM_INFINITY not in limits[1:]


def test_pictures_in_a_zip_that_can_not_be_unpacked_are_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_folder, "MOST_BYTES", 100_000)
    path = write_zip(tmp_path / "mine.zip", files((15, 15)))
    content = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("green/long.png", picture((0, 200, 0)) + bytes(10**6))
    path.write_bytes(encrypted(content.getvalue()))  # the first
    dataset = find_dataset(path)
    assert len(dataset.x_train) + len(dataset.x_test) == 29
    assert "Left out, as no pictures: 2 files" in capsys.readouterr().out


def test_picture_in_a_zip_that_is_left_out_is_named(tmp_path, capsys):
    content = files((10, 10)) | {"green/phone.heic": b"    ftypheic"}
    find_dataset(write_zip(tmp_path / "mine.zip", content))
    assert "for example green/phone.heic is HEIC" in capsys.readouterr().out


def test_class_may_be_called_a_batch(tmp_path):
    content = {name.replace("green", "my_batch_1"): data for name, data in files((5, 5)).items()}
    dataset = find_dataset(write(tmp_path / "mine", content))
    assert dataset.class_names == ("blue things", "my_batch_1")


def test_empty_class_is_refused(tmp_path):
    write(tmp_path / "mine", files((5, 5)))
    (tmp_path / "mine" / "empty").mkdir()
    assert "no pictures in empty" in refusal(tmp_path / "mine")


def test_few_files_that_are_no_pictures_are_counted(tmp_path, capsys):
    content = files((10, 10)) | {"green/notes.txt": b"a", "README": b"b"}
    dataset = find_dataset(write(tmp_path / "mine", content))
    assert len(dataset.x_train) + len(dataset.x_test) == 20
    told = capsys.readouterr().out
    assert "Left out: 1 files in no folder of a class" in told
    assert re.search(r"Left out, as no pictures: 1 files, for example \S+notes.txt: damaged", told)


def test_pipe_among_the_pictures_is_not_waited_for(tmp_path, capsys):
    write(tmp_path / "mine", files((10, 10)))
    os.mkfifo(tmp_path / "mine" / "green" / "pipe.png")
    find_dataset(tmp_path / "mine")
    assert "pipe.png is not a regular file" in capsys.readouterr().out


def test_link_that_leads_to_itself_is_no_picture(tmp_path, capsys):
    write(tmp_path / "mine", files((10, 10)))
    (tmp_path / "mine" / "green" / "loop.png").symlink_to("loop.png")
    find_dataset(tmp_path / "mine")
    assert "Left out, as no pictures: 1 files" in capsys.readouterr().out


def test_folder_that_can_not_be_read_is_told(tmp_path, monkeypatch):
    write(tmp_path / "mine", files((10, 10)))
    close_folder(monkeypatch, "green")
    with pytest.raises(PermissionError, match="green"):
        find_dataset(tmp_path / "mine")


@pytest.mark.parametrize("target", ["file", "folder"])
def test_symbolic_link_that_leaves_the_folder_is_refused(tmp_path, target):
    write(tmp_path / "mine", files((5, 5)))
    write(tmp_path / "secret", {"a.png": picture((1, 2, 3))})
    outside = tmp_path / "secret" / ("a.png" if target == "file" else "")
    (tmp_path / "mine" / "green" / "link.png").symlink_to(outside)
    assert "link.png is a symbolic link: put a copy in its place" in refusal(tmp_path / "mine")


def test_what_is_hidden_is_left_alone(tmp_path, capsys):
    content = SPLIT | {name: b"x" for name in (".git/HEAD", "train/.DS_Store", "test/red/._1.png")}
    folder = write(tmp_path / "mine", content)
    (folder / ".venv").symlink_to(tmp_path)
    (folder / "train" / "red" / ".link.png").symlink_to("/etc/passwd")
    assert find_dataset(folder).class_names == ("blue things", "green", "red")
    assert "Left out" not in capsys.readouterr().out


def test_pictures_in_train_and_test_are_counted(tmp_path, capsys):
    content = SPLIT | {"test/red/same.png": SPLIT["train/red/0.png"]}
    find_dataset(write(tmp_path / "mine", content))
    assert "Warning: 1 of the 6 pictures to test on are among" in capsys.readouterr().out


def test_pictures_that_memory_can_not_hold_are_refused_before_they_are_read(tmp_path, monkeypatch):
    write(tmp_path / "mine", files((10, 10)))
    monkeypatch.setattr(data_folder, "read_image", lambda *_: pytest.fail("was read"))
    sizes = {"SC_PHYS_PAGES": 50, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", lambda name: sizes[name])
    told = refusal(tmp_path / "mine", image_size=64)
    assert "mine: 20 of 64x64 pixels in 2 classes take 0.0 GB" in told


def test_labels_that_memory_can_not_hold_are_refused(monkeypatch):
    images, labels = np.zeros((4_000, 8, 8, 3), np.uint8), np.arange(4_000)
    sizes = {"SC_PHYS_PAGES": 500_000_000, "SC_PAGE_SIZE": 1}
    monkeypatch.setattr(os, "sysconf", lambda name: sizes[name])
    with pytest.raises(UsageError, match=r"8,000 of 8x8 pixels in 4,000 classes take 0\.3 GB"):
        validated(images, labels, images, labels)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder with pictures in mine/ of which a final model has learned three colours."""
    folder = tmp_path_factory.mktemp("learned")
    write(folder / "mine", files((25, 25, 25)))
    arguments = ("--data", "mine", "--image-size", 16, "--epochs", 4, "--batch-size", 5)
    arguments += ("--format", "keras")
    ended = call("finalize.py", "--experiment", "baseline1", *arguments, cwd=folder)
    assert ended.code == 0, ended.errors
    return folder, ended.output


def test_final_model_knows_the_classes_and_their_names(learned):
    folder, output = learned
    assert "(on mine, 3 classes, 16x16 pixels)" in output
    recorded = result(folder / "runs" / "final_model.json")
    assert recorded["dataset"]["class_names"] == list(COLOURS)
    assert recorded["dataset"]["image_size"] == 16
    assert recorded["published_accuracy"] is None
    Image.new("RGB", (60, 50), (255, 0, 0)).save(folder / "photo.png")
    ended = call("predict.py", "photo.png", cwd=folder)
    assert "Model: final_model.keras, baseline1" in ended.output, ended.errors
    assert "photo.png: 2 red (red " in ended.output
    answer = json.loads(call("predict.py", "--json", "photo.png", cwd=folder).output)
    assert (answer["class"], answer["name"]) == (2, "red")
    assert list(answer["probabilities"]) == list(COLOURS)
    ended = call("explain.py", "photo.png", cwd=folder)
    assert ended.code == 0 and (folder / "runs/explain_photo_png.png").exists(), ended.errors
    (name, path), *_ = find_models([], folder / "final_model.keras").items()
    assert path == folder / "final_model.keras"
    told = Networks({name: path}).ask(name, folder / "photo.png").told
    assert told.startswith("red, ") and "Trained on mine, 3 classes, 16x16 pixels" in told


def test_model_is_evaluated_on_its_own_pictures(learned):
    folder, output = learned
    assert "evaluate.py --data mine\n" in output
    ended = call("evaluate.py", "--data", "mine", cwd=folder)
    assert ended.code == 0, ended.errors
    accuracy = result(folder / "runs" / "final_model.json")["test_accuracy"]
    assert f"> {accuracy:.3f} (trained on mine, 3 classes, 16x16 pixels" in ended.output
    assert re.findall(r"^  (\w.*?)  +[\d.]+ %  \(95 %", ended.output, re.M) == list(COLOURS)
    for name in ("confusion", "mistakes", "reliability"):
        assert len(colours(folder / f"runs/evaluate_{name}.png")) > 10
    ended = call("evaluate.py", "--sample", cwd=folder)
    assert_refused(ended, "final_model.keras tells blue things, green, red apart")


def test_pictures_that_were_added_since_the_training_are_told(learned, tmp_path):
    shutil.copytree(learned[0] / "mine", tmp_path / "more")
    write(tmp_path / "more", {"green/new.png": picture((0, 90, 3))})
    model = learned[0] / "final_model.keras"
    ended = call("evaluate.py", "--data", "more", "--model", model, cwd=tmp_path)
    assert "Warning: these are not the very images that the model was trained" in ended.output
    ended = call("evaluate.py", "--data", "mine", cwd=learned[0])
    assert "Warning" not in ended.output


def test_prediction_is_suggested_for_the_pictures_themselves(learned):
    assert learned[1].endswith("predict.py mine\n")
    ended = call("predict.py", "mine", cwd=learned[0])
    assert ended.code == 0 and ended.output.count("mine/red/") == 25


def test_files_that_a_run_leaves_are_not_put_among_the_pictures(learned):
    ended = call("evaluate.py", "--data", "mine", "--out", "mine/runs", cwd=learned[0])
    assert_refused(ended, "mine/runs is among the images", "name a folder elsewhere")


def test_fewer_pictures_than_classes_are_refused(tmp_path):
    dataset = find_dataset(write(tmp_path / "mine", files((9, 9, 9))))
    with pytest.raises(UsageError, match="--limit 2 is too few for 3 classes"):
        load_dataset(dataset, limit=2)


def test_name_with_a_new_line_is_told_in_one(tmp_path):
    ended = call("predict.py", "x\npredict.py: error: all is well.png", cwd=tmp_path)
    assert_refused(ended, r"there is no file x\npredict.py")


def test_nothing_is_downloaded_for_a_model_of_other_pictures(learned, monkeypatch):
    monkeypatch.setattr(download, "download", lambda: pytest.fail("downloads"))
    ended = call("evaluate.py", cwd=learned[0])
    assert_refused(ended, "final_model.keras tells blue things", "name such images with --data")


@pytest.mark.parametrize("script", ["predict.py", "explain.py"])
def test_photo_has_to_be_named_where_the_model_knows_no_deer(learned, script):
    assert_refused(call(script, cwd=learned[0]), "name a photo of one of them")


def test_pictures_are_shown_with_their_names(learned):
    ended = call("experiments/explore_dataset.py", "--data", "mine", cwd=learned[0])
    assert ended.code == 0 and "X=(60, 32, 32, 3), y=(60, 3)" in ended.output
    assert "baseline1.py --data mine\n" in ended.output


def test_size_is_for_pictures_in_folders(tmp_path):
    ended = train(Experiment(tiny_network, 1), *TINY, "--image-size", 64, cwd=tmp_path)
    assert_refused(ended, "have 32x32 pixels, not 64x64 (--image-size)")
    ended = train(Experiment(tiny_network, 1), *TINY, "--image-size", 20, cwd=tmp_path)
    assert_refused(ended, "20 is not a multiple of 8")


# Arrays of other kinds.


def write_npz(path, **changes):
    labels = np.arange(12, dtype=np.uint8) % 3
    images = np.zeros((12, 16, 16, 3), np.uint8)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    path.write_bytes(npz(**arrays | changes))
    return path


@pytest.mark.parametrize("labels", [np.eye(3)[np.arange(12) % 3], (np.arange(12) % 3)[:, None]])
def test_npz_of_three_classes(tmp_path, labels):
    dataset = find_dataset(write_npz(tmp_path / "three.npz", y_train=labels))
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.y_train.tolist() == [0, 1, 2] * 4 and dataset.image_size() == 16


def test_npz_of_more_images_than_cifar10_has(tmp_path, monkeypatch):
    images, labels = np.zeros((60_000, 8, 8, 3), np.uint8), np.arange(60_000) % 3
    few = {"x_test": images[:12], "y_test": labels[:12]}
    path = write_npz(tmp_path / "many.npz", x_train=images, y_train=labels, **few)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["baseline1.py", "--data", str(path), "--limit", "55000"])
    options = parse_options(option_parser(100))
    assert len(load_dataset(find_dataset(options.data), options.limit)[0]) == 55_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"y_train": np.eye(3)[np.arange(12) % 3] / 2}, "neither indices of classes nor one-hot"),
        ({"y_train": np.arange(12) % 3 - 1}, "not those of classes counted from 0"),
        ({"y_train": np.full(12, 2**40)}, "not those of classes counted from 0"),
        ({"y_train": np.arange(12) + 1}, "not those of classes counted from 0"),
        ({"y_test": np.arange(12) % 2}, "the test labels are not the 3 classes 0 to 2"),
        (
            {"y_train": np.zeros(12, int), "y_test": np.zeros(12, int)},
            "images are of one class",
        ),
        ({"x_test": np.zeros((12, 24, 24, 3), np.uint8)}, "need uint8 images of shape (12, 16, 16"),
        ({"x_train": np.zeros((12, 20, 20, 3), np.uint8)}, "20, are no multiple of 8 up to 512"),
        ({"x_train": np.zeros((12, 520, 520, 3), np.uint8)}, "520, are no multiple of 8 up to"),
        ({"x_train": np.zeros((12, 16, 16, 1), np.uint8)}, "got uint8 (12, 16, 16, 1)"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(tmp_path, changes, reason):
    assert reason in refusal(write_npz(tmp_path / "bad.npz", **changes))
