import json
import re

from conftest import BLUE, ROOT, a_result, assert_refused, call, close_folder, colours, tiny_network
from data.dataset import CLASS_NAMES
from data.download import find_dataset
from machinery.final_model import save_final_model

import keras
import numpy as np
import pytest
from PIL import Image


def model_file(folder, remark):
    path = folder / "model.h5"
    model = tiny_network()
    save_final_model(model, a_result(remark=remark), path)
    return path


def predict(folder, *arguments, remark=""):
    return call("predict.py", "--model", model_file(folder, remark), *arguments, cwd=folder)


def test_deer_is_the_default_photo(tmp_path):
    ended = predict(tmp_path)
    assert ended.code == 0, ended.errors
    assert re.search(
        r"^sample_image\.png: \d [a-z]+ \([a-z]+ \d+\.\d %, [a-z]+ .*%, [a-z]+ .*%\)$",
        ended.output, re.M,
    )  # fmt: skip
    assert "expect mistakes" not in ended.output


def test_probabilities_are_those_of_the_model_likeliest_first(tmp_path):
    ended = predict(tmp_path, "--top", 10)
    pixels = np.asarray(Image.open(ROOT / "sample_image.png")) / np.float32(255)
    model = keras.saving.load_model(tmp_path / "model.h5", compile=False)
    (probabilities,) = model.predict(pixels[None], verbose=0)
    order = probabilities.argsort()[::-1]
    guesses = ", ".join(f"{CLASS_NAMES[i]} {100 * probabilities[i]:.1f} %" for i in order)
    line = f"sample_image.png: {order[0]} {CLASS_NAMES[order[0]]} ({guesses})\n"
    assert ended.output.endswith(line)


def test_model_that_was_trained_on_a_sample_is_said_to_make_mistakes(tmp_path):
    ended = predict(tmp_path, remark="on the sample of CIFAR-10")
    assert "Trained on the sample of CIFAR-10: expect mistakes." in ended.output


def test_bad_images_are_named_and_the_others_predicted(tmp_path):
    Image.open(ROOT / "sample_image.png").save(tmp_path / "good.jpg")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty").mkdir()
    too_long = 300 * "x" + ".png"
    ended = predict(tmp_path, "empty", too_long, "text.png", "missing.png", "good.jpg")
    assert ended.code == 2
    named = [line for line in ended.errors.splitlines() if "error: " in line]
    for line, name in zip(named, ("in empty", too_long, "text.png", "missing.png"), strict=True):
        assert name in line
    assert "Traceback" not in ended.errors
    assert "\ngood.jpg: " in ended.output


def test_missing_model_is_explained(tmp_path):
    ended = call("predict.py", "--model", "mine.h5", cwd=tmp_path)
    assert_refused(ended, "no model mine.h5", "finalize.py --model mine.h5 --sample")


def test_pictures_of_answers_are_not_put_among_the_photos(tmp_path):
    (tmp_path / "photos/deer").mkdir(parents=True)
    for folder in ("photos", "photos/deer/answers"):
        ended = predict(tmp_path, "photos", "--save", folder)
        assert_refused(ended, "argument --save: ", "is among the images")
    assert list((tmp_path / "photos/deer").iterdir()) == []


@pytest.mark.parametrize("top", [0, "three"])
def test_senseless_number_of_classes_is_refused(tmp_path, top):
    assert_refused(call("predict.py", "--top", top, cwd=tmp_path), "of at least 1")


def test_photos_of_a_folder_are_predicted_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png", "inner/c.png", ".cache/d.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(ROOT / "sample_image.png").save(tmp_path / "photos" / name)
    ended = predict(tmp_path, "photos")
    assert ended.code == 0, ended.errors
    shown = re.findall(r"^photos/(\S+): \d", ended.output, re.M)
    assert shown == ["a.jpg", "b.png", "inner/c.png"]


def test_folder_that_can_not_be_looked_into_stops_no_others(tmp_path, monkeypatch):
    for name in ("open/a.png", "closed/b.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.open(ROOT / "sample_image.png").save(tmp_path / "photos" / name)
    close_folder(monkeypatch, "closed")
    ended = predict(tmp_path, "photos")
    assert_refused(ended, "photos/closed: Permission denied")
    assert "photos/open/a.png: " in ended.output


def test_json_is_all_that_programs_read(tmp_path):
    ended = predict(tmp_path, "--json", remark="on the sample of CIFAR-10")
    answer = json.loads(ended.output)
    assert answer["image"] == "sample_image.png"
    assert list(answer["probabilities"]) == list(CLASS_NAMES)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    best = max(answer["probabilities"], key=answer["probabilities"].get)
    assert (answer["name"], CLASS_NAMES[answer["class"]]) == (best, best)
    assert "expect mistakes" in ended.errors


def test_answer_is_drawn(tmp_path):
    """With the whole photo, of which the model sees the middle alone."""
    photo = Image.new("RGB", (120, 40), (200, 7, 3))
    photo.paste((7, 200, 3), (30, 0, 90, 40))
    photo.save(tmp_path / "green.png")
    ended = predict(tmp_path, "--save", "answers", "green.png")
    assert "Picture: answers/predict_green_png.png\n" in ended.output
    drawn = colours(tmp_path / "answers" / "predict_green_png.png")
    assert {(7, 200, 3), (200, 7, 3), BLUE} <= drawn
    assert not (tmp_path / "runs").exists()


def test_photos_of_the_same_name_are_drawn_into_pictures_of_their_own(tmp_path):
    photos = {"1/in/p.png": (7, 200, 3), "2/in/p.png": (200, 7, 3), "2/out/p.png": (3, 7, 200)}
    for name, colour in photos.items():
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (50, 40), colour).save(tmp_path / name)
    predict(tmp_path, "--save", "answers", *photos)
    answers = "predict_in_p_png", "predict_in_p_png_2", "predict_out_p_png"
    for answer, colour in zip(answers, photos.values(), strict=True):
        assert colour in colours(tmp_path / "answers" / f"{answer}.png")


def test_answer_that_can_not_be_drawn_stops_no_others(tmp_path):
    for name in ("x.png", "y.png"):
        Image.new("RGB", (50, 40)).save(tmp_path / name)
    in_the_way = tmp_path / "answers" / "predict_x_png.png"
    in_the_way.mkdir(parents=True)
    ended = predict(tmp_path, "--save", "answers", "x.png", "y.png")
    assert ended.code == 2 and "predict_x_png.png can't be written: Is a directory" in ended.errors
    assert (tmp_path / "answers" / "predict_y_png.png").is_file() and in_the_way.is_dir()


def test_photo_of_a_phone_in_a_format_that_is_not_read_says_how_to_convert_it(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    ended = predict(tmp_path, "photo.heic")
    assert_refused(ended, "photo.heic is HEIC", "heif-convert photo.heic photo.jpg")


def test_name_of_a_photo_does_not_control_the_terminal(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a\x1b[2J.png")
    ended = predict(tmp_path, "--save", "answers", "a\x1b[2J.png")
    assert "\na\\x1b[2J.png: " in ended.output and "\x1b" not in ended.output


@pytest.mark.dataset
def test_sample_image_is_a_deer_of_the_test_set():
    full = find_dataset()
    deer = np.asarray(Image.open(ROOT / "sample_image.png"))
    (index,) = np.flatnonzero((full.x_test == deer).all(axis=(1, 2, 3)))
    assert CLASS_NAMES[full.y_test[index]] == "deer"


def test_control_characters_in_names_are_written_out_in_errors(tmp_path):
    (tmp_path / "bad\x1b[2J\nname").mkdir()
    ended = predict(tmp_path, "bad\x1b[2J\nname")
    assert_refused(ended, r"there are no photos in bad\x1b[2J\nname")
