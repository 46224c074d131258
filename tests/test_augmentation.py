from data.augmentation import flip_and_shift, interpolate

import keras
import numpy as np
import pytest
from keras import layers


def augmented(images, seed=0):
    return flip_and_shift(images, np.arange(len(images)), 0, np.random.default_rng(seed))


def test_augmentation_moves_pixels(photos):
    moved = np.abs(augmented(photos) - photos).max(axis=(1, 2, 3))
    assert (moved > 0.01).mean() > 0.95


def test_augmented_images_are_float32_within_the_range_of_the_image(photos):
    seen = augmented(photos)
    assert (seen.dtype, seen.shape) == (np.float32, photos.shape)
    for variant, photo in zip(seen, photos, strict=True):
        assert photo.min() - 1e-5 <= variant.min() and variant.max() <= photo.max() + 1e-5


def test_same_generator_draws_the_same_variants(photos):
    np.testing.assert_array_equal(augmented(photos, seed=3), augmented(photos, seed=3))
    assert np.abs(augmented(photos, seed=3) - augmented(photos, seed=4)).max() > 0.01


def test_augmentation_flips_half_of_the_images_and_shifts_up_to_a_tenth():
    # A dark image whose left half is bright: its edge shows where the image has gone.
    image = np.zeros((1, 32, 32, 3), "float32")
    image[:, :, :16] = 1
    for turned in (image, image.transpose(0, 2, 1, 3)):  # along the width, along the height
        seen = augmented(np.repeat(turned, 4000, axis=0))
        lines = seen[:, 5, :, 0] if turned is image else seen[:, :, 5, 0]
        flipped = lines[:, 0] < 0.5
        assert 0.47 < flipped.mean() < 0.53 if turned is image else not flipped.any()
        shifts = np.sort(lines[~flipped].sum(axis=1) - 16)
        uniform = np.linspace(-3.2, 3.2, len(shifts))
        assert np.abs(shifts - uniform).max() < 0.25  # Kolmogorov-Smirnov, as it were


def test_what_is_drawn_for_one_image_does_not_tell_of_the_next():
    image = np.zeros((1, 32, 32, 3), "float32")
    image[:, :16, :16] = 1
    seen = augmented(np.repeat(image, 4000, axis=0))[..., 0]
    down, right = seen[:, :, [0, -1]].sum(axis=(1, 2)), seen[:, 5].sum(axis=1)
    flipped = seen[:, 5, 0] < 0.5
    pairs = (down, right), (down, flipped), (right, flipped), (down[1:], down[:-1])
    for left, other in pairs:
        assert abs(np.corrcoef(left, other)[0, 1]) < 0.06


@pytest.mark.parametrize("down", [-0.1, -0.04, 0.0, 0.06, 0.1])
def test_shifted_images_are_those_of_the_keras_layer(photos, down):
    right = down / 2 - 0.02
    layer = layers.RandomTranslation((down, down), (right, right), fill_mode="nearest")
    pixels = np.arange(32, dtype="float32")
    rows, columns = (np.clip(pixels - 32 * shift, 0, 31) for shift in (down, right))
    seen = interpolate(photos, np.tile(rows, (64, 1)), np.tile(columns, (64, 1)))
    np.testing.assert_allclose(seen, layer(photos, training=True), atol=1e-4)


def test_interpolation_between_pixels_is_bilinear():
    image = np.array([[0, 1], [2, 4]], "float32").reshape(1, 2, 2, 1)
    seen = interpolate(image, np.array([[0, 0.5, 1]]), np.array([[0.25, 1]]))
    np.testing.assert_allclose(seen[0, :, :, 0], [[0.25, 1], [1.375, 2.5], [2.5, 4]])


def test_augmentation_has_the_mean_and_spread_of_the_keras_layers(photos):
    stock = keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=1),
            layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=2),
        ]
    )
    many = np.repeat(photos[:1], 4000, axis=0)
    ours, theirs = augmented(many), stock(many, training=True).numpy()
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=0.02)
