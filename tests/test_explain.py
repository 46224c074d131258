import explain
from conftest import (
    BLUE,
    ORANGE,
    ROOT,
    a_result,
    assert_refused,
    call,
    colours,
    red_and_blue,
    tiny_network,
)
from experiments import ALL, load_experiment
from explain import draw_filters
from machinery import figures
from machinery.final_model import load_final_model, save_final_model
from machinery.grad_cam import explain_answer, find_blocks, grad_cam, look_inside
from models.pretrained import pretrained_vgg16

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

HEIGHTS = {
    "baseline1": [32],
    "baseline2": [32, 16],
    "baseline4": [32, 16, 8, 4],
    "baseline5": [32, 16, 8, 4, 2],
    "speedrun": [31, 15, 7, 3],
    "transfer_vgg16": [32, 16, 8, 4, 2],
    "transfer_vgg16_tuned": [32, 16, 8, 4, 2],
    "transfer_shipped": [31, 15, 7],
}


def model_of(name):
    """The model of an experiment, untrained, and of VGG-16 without its weights."""
    if name.startswith("transfer_vgg16"):
        return pretrained_vgg16(
            (32, 32, 3), 10, None, trainable=name.endswith("tuned"), learning_rate=0.001
        )
    return load_experiment(name).define_model()


def saved(model, path, name="baseline3"):
    save_final_model(model, a_result(name), path)
    return path


def inside(model, images):
    """What explain.py computes: `(outputs, heat)`, where `heat(label)` is a heat map."""
    images = tf.constant(images)
    with tf.GradientTape(persistent=True) as tape:
        outputs = look_inside(model, images)
    _, maps = find_blocks(outputs)[-1]
    return outputs, lambda label: grad_cam(tape, outputs[-1][1], label, maps, 32).numpy()


def explained(model, folder, *arguments, name="baseline3"):
    path = saved(model, folder / "model.h5", name)
    return call("explain.py", *arguments, "--model", path, cwd=folder)


# What is computed.


@pytest.mark.parametrize("name", ALL)
def test_every_experiments_model_is_looked_into(tmp_path, photos, name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    path = saved(model_of(name), tmp_path / "model.h5")
    keras.config.set_dtype_policy("float32")
    model, _ = load_final_model(path)
    photo = photos[:1]
    probabilities = model(photo, training=False)
    outputs, heat = inside(model, photo)
    scores = outputs[-1][1]
    np.testing.assert_allclose(tf.nn.softmax(scores), probabilities, atol=1e-4)
    blocks = find_blocks(outputs)
    assert [maps.shape[1] for _, maps in blocks] == HEIGHTS.get(name, [32, 16, 8])
    assert not any("pooling" in layer.name or "random" in layer.name for layer, _ in blocks)
    heat_maps = np.array([heat(label) for label in range(10)])
    assert heat_maps.shape == (10, 32, 32) and heat_maps.dtype == np.float32
    assert heat_maps.min() >= 0 and set(heat_maps.max(axis=(1, 2))) <= {0, 1} and heat_maps.any()


def red_left_blue_right():
    image = np.zeros((1, 32, 32, 3), np.float32)
    image[:, :, :16, 0] = 1
    image[:, :, 16:, 2] = 0.9
    return image


@pytest.mark.parametrize("sure", [0.01, 1000])
def test_grad_cam_lies_where_the_class_is(sure):
    _, heat = inside(red_and_blue(sure), red_left_blue_right())
    left, right = np.zeros((2, 32, 32))
    left[:, :16] = right[:, 16:] = 1
    np.testing.assert_allclose(heat(3), left)
    np.testing.assert_allclose(heat(5), right)
    assert not heat(7).any()


def test_grad_cam_is_the_gradient_of_the_score_times_the_maps(photos):
    """In a network whose scores are a sum over places, it is this sum before the summation."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="last")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    maps = keras.Model(inputs, model.get_layer("last").output).predict(photos[:1], verbose=0)
    expected = np.maximum(maps[0] @ model.layers[-1].kernel.numpy(), 0)
    _, heat = inside(model, photos[:1])
    for label in range(10):
        largest = expected[..., label].max() or 1
        np.testing.assert_allclose(heat(label), expected[..., label] / largest, atol=1e-3)


def test_traced_function_explains_one_photo_after_the_other(photos):
    """What it finds is what is found without tracing, in a model that was not looked into yet."""
    model = load_experiment("speedrun").define_model()
    weights = model.get_weights()

    @tf.function(autograph=False)
    def traced(images):
        return explain_answer(model, images)[2:]

    for photo in photos[:2, None]:
        fresh = load_experiment("speedrun").define_model()
        fresh.set_weights(weights)
        expected = explain_answer(fresh, tf.constant(photo))[2:]
        for ours, theirs in zip(traced(tf.constant(photo)), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_models_within_the_model_are_looked_into(tmp_path, photos):
    flat = model_of("dropout_augmentation_batchnorm")
    middle = next(i for i, layer in enumerate(flat.layers) if "pooling" in layer.name) + 1
    inner = keras.Sequential([keras.Input((32, 32, 3)), *flat.layers[1:middle]])
    outer = keras.Sequential([keras.Input((16, 16, 32)), *flat.layers[middle:]])
    inputs = keras.Input((32, 32, 3))
    nested = keras.Model(inputs, keras.Model(inner.inputs, outer(inner.outputs[0]))(inputs))
    results = []
    for model in (flat, nested):
        path = saved(model, tmp_path / "model.h5")
        outputs, heat = inside(load_final_model(path)[0], photos[:1])
        names = [layer.name for layer, _ in find_blocks(outputs)]
        results.append((names, heat(0), heat(1)))
    assert results[0][0] == results[1][0] == [f"batch_normalization{i}" for i in ("_1", "_3", "_5")]
    np.testing.assert_allclose(results[0][1:], results[1][1:], atol=1e-5)


def test_blocks_of_a_residual_network_end_with_its_sums(photos):
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    for block in range(3):
        strides = 2 if block else 1
        y = layers.Conv2D(8, 3, strides, padding="same", activation="relu")(x)
        y = layers.Conv2D(8, 3, padding="same")(y)
        x = layers.Add(name=f"sum_{block}")([y, layers.Conv2D(8, 1, strides)(x)])
    outputs = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    outputs, _ = inside(keras.Model(inputs, outputs), photos[:1])
    assert [layer.name for layer, _ in find_blocks(outputs)] == ["sum_0", "sum_1", "sum_2"]


def test_border_that_a_convolution_takes_away_ends_no_block(photos):
    unpadded = [layers.Conv2D(8, 3) for _ in range(3)]
    unpadded.insert(2, layers.MaxPooling2D(2))
    head = [layers.Flatten(), layers.Dense(10, activation="softmax")]
    outputs, _ = inside(keras.Sequential([keras.Input((32, 32, 3)), *unpadded, *head]), photos[:1])
    assert [maps.shape[1] for _, maps in find_blocks(outputs)] == [28, 12]


# What is drawn.


@pytest.fixture
def tiles(monkeypatch):
    """Lets the tiles of a picture be kept, not drawn: a list of them."""
    kept = []
    monkeypatch.setattr(explain, "draw_tiles", lambda figure, title, tiles, n: kept.append(tiles))
    return kept


def test_first_filters_are_drawn_in_red_green_and_blue(tiles):
    layer = layers.Conv2D(4, 3)
    layer.build((None, 8, 8, 3))
    kernel = np.zeros((3, 3, 3, 4))
    kernel[:, :, 0], kernel[:, :, 2] = -0.1, 0.2
    layer.kernel.assign(kernel)
    draw_filters(None, [layer])
    (drawn,) = tiles
    assert drawn.shape == (4, 3, 3, 3)
    np.testing.assert_allclose(drawn, np.broadcast_to([0.25, 0.5, 1], drawn.shape), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_filters_on_other_channels_than_colours_are_gray(tiles, channels):
    layer = layers.Conv2D(4, 2)
    layer.build((None, 8, 8, channels))
    draw_filters(None, [layer])
    (drawn,) = tiles
    assert drawn.shape == (4, 2, 2, 3) and drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn[..., :1] == drawn).all() == (channels != 3)


def test_strongest_feature_maps_come_first(tiles):
    maps = np.zeros((1, 4, 4, 20), np.float32)
    maps[0, 1, 2] = np.random.default_rng(0).permutation(20)
    explain.draw_maps(None, 1, layers.Conv2D(20, 3), tf.constant(maps, tf.bfloat16))
    (drawn,) = tiles
    assert [tile[1, 2] for tile in drawn] == [19, 18, 17, 16, 15, 14, 13, 12]
    assert drawn.shape == (8, 4, 4) and drawn.dtype == np.float32


def texts(figure):
    everywhere = figure.findobj(plt.Text)
    return " ".join(text.get_text() for text in everywhere if text.get_text())


@pytest.mark.parametrize("name", ["baseline3", "speedrun", "transfer_vgg16"])
def test_picture_shows_the_photo_and_tells_the_rest(tmp_path, monkeypatch, name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    told = []
    save_figure = figures.save_figure

    def keep_and_save(figure, path):
        told.append(texts(figure))
        save_figure(figure, path)

    monkeypatch.setattr(figures, "save_figure", keep_and_save)
    ended = explained(model_of(name), tmp_path, name=name)
    assert ended.code == 0, ended.errors
    assert "Picture: runs/explain_sample_image_png.png\nNext:    python " in ended.output
    picture = tmp_path / "runs" / "explain_sample_image_png.png"
    assert Image.open(picture).width == 1000
    deer = colours(ROOT / "sample_image.png")
    assert {BLUE, ORANGE} <= colours(picture) and len(deer & colours(picture)) > 0.95 * len(deer)
    predicted = call("predict.py", "--model", "model.h5", "--top", 2, cwd=tmp_path).output
    guesses = predicted.rpartition("(")[2].rstrip(")\n").split(", ")
    (told,) = told
    assert f"model.h5 ({name}) on sample_image.png: {guesses[0].split()[0]}, " in told
    for guess in guesses:
        label, percent, _ = guess.split()
        assert f"what speaks for\n{label}, {percent} %" in told
    last = {"baseline3": "conv2d_5", "speedrun": "activation_6", "transfer_vgg16": "block5_conv3"}
    assert f"Grad-CAM on {last[name]}" in told
    maps = {"baseline3": "block 3: 8x8, 8 of 128", "speedrun": "block 4: 3x3, 8 of 256"}
    assert maps.get(name, "block 5: 2x2, 8 of 512 feature maps") in told


def test_photos_have_pictures_of_their_own_whatever_they_are_called(tmp_path):
    names = "my_photo.jpg", r"$\frac{$ _b_.png", "cats/1.png", "dogs/1.png", "dogs/1.jpg"
    path = saved(red_and_blue(), tmp_path / "model.h5")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(ROOT / "sample_image.png").save(tmp_path / name)
        ended = call("explain.py", name, "--model", path, "--out", "here", cwd=tmp_path)
        assert ended.code == 0, ended.errors
    pictures = {picture.name.removeprefix("explain_") for picture in tmp_path.glob("here/*")}
    assert pictures == {
        "my_photo_jpg.png", r"$\frac{$ _b__png.png", "cats_1_png.png", "dogs_1_png.png",
        "dogs_1_jpg.png",
    }  # fmt: skip


# What is refused.


def test_missing_model_is_explained(tmp_path):
    ended = call("explain.py", "--model", "mine.h5", cwd=tmp_path)
    assert_refused(ended, "no model mine.h5", "finalize.py")


@pytest.mark.parametrize(
    ("photo", "reason"),
    [("text.png", "not a picture"), ("missing.png", "no file"), (".", "is a folder")],
)
def test_unreadable_photo_is_refused(tmp_path, photo, reason):
    (tmp_path / "text.png").write_text("not an image")
    assert_refused(explained(red_and_blue(), tmp_path, photo), photo, reason)
    assert list((tmp_path / "runs").iterdir()) == []


def test_model_without_convolutions_is_refused(tmp_path):
    assert_refused(
        explained(tiny_network(), tmp_path),
        ".h5: damaged or foreign (the model has no convolutions",
    )


def test_model_that_can_not_be_explained_is_refused(tmp_path):
    inputs = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(2, 3)(inputs)
    maps = keras.layers.ZeroPadding2D(0)(keras.ops.stop_gradient(maps))
    scores = keras.layers.Dense(10)(keras.layers.Flatten()(maps))
    model = keras.Model(inputs, keras.layers.Softmax()(scores))
    path = saved(model, tmp_path / "model.keras")
    assert_refused(call("explain.py", "--model", path, cwd=tmp_path), f"{path}: damaged or foreign")


def test_many_filters_are_not_all_drawn(monkeypatch):
    titles = []
    monkeypatch.setattr(explain, "draw_tiles", lambda figure, title, *others: titles.append(title))
    layer = layers.Conv2D(500, 3)
    layer.build((None, 8, 8, 3))
    draw_filters(None, [layer])
    assert titles[0].startswith("64 of 500 filters of the first layer")


def test_model_without_softmax_is_refused(tmp_path):
    model = red_and_blue()
    model.layers[-1].activation = keras.activations.sparsemax
    assert_refused(explained(model, tmp_path), model.layers[-1].name, "no softmax")
