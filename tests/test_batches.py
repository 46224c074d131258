from data.batches import Batches, TrainingBatches
from experiments.speedrun import augment
from harness import prep_pixels

import numpy as np
import pytest


def training_batches(images, labels, batch_size=8, seed=0, epoch=0, augment=None):
    batches = TrainingBatches(images, labels, batch_size, prep_pixels, augment)
    batches.shuffle(epoch, np.random.default_rng([seed, epoch]))
    return batches


def order(**options):
    """The order in which 20 images come, which have their index for a label."""
    batches = training_batches(np.zeros((20, 1, 1, 3), np.uint8), np.arange(20), **options)
    return np.concatenate([batches[step][1] for step in range(len(batches))]).tolist()


def test_batches_hold_every_image_once_in_order(sample):
    batches = Batches(sample.x_train, sample.y_train, 64, prep_pixels)
    parts = [batches[step] for step in range(len(batches))]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, sample.x_train / 255, atol=1e-6)
    np.testing.assert_array_equal(labels, sample.y_train)


@pytest.mark.parametrize("kind", [Batches, TrainingBatches])
def test_last_batch_is_smaller(sample, kind):
    batches = kind(sample.x_train[:20], sample.y_train[:20], 8, prep_pixels)
    assert [len(batches[step][0]) for step in range(len(batches))] == [8, 8, 4]
    assert len(kind(sample.x_train[:16], sample.y_train[:16], 8, prep_pixels)) == 2


def test_an_epoch_shows_every_image_once_in_another_order():
    first, second = order(epoch=0), order(epoch=1)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second != list(range(20)) != first


def test_the_order_depends_on_seed_and_epoch_alone():
    assert order(seed=0, epoch=3) == order(seed=0, epoch=3)
    assert order(seed=0, epoch=3) != order(seed=2**32 - 1, epoch=3)


def test_the_order_of_an_epoch_is_the_same_however_training_got_there():
    images, labels = np.zeros((20, 1, 1, 3), np.uint8), np.arange(20)
    batches = training_batches(images, labels, epoch=0)
    batches.shuffle(1, np.random.default_rng([0, 1]))
    assert batches.order.tolist() == order(epoch=1)


def test_images_and_labels_stay_together(sample):
    batches = training_batches(sample.x_train[:50], np.arange(50), 16)
    for step in range(len(batches)):
        images, indices = batches[step]
        np.testing.assert_allclose(images, sample.x_train[indices] / 255, atol=1e-6)


def test_augmentation_is_told_which_images_and_which_epoch(sample):
    seen = []

    def remember(images, labels, indices, epoch, random):
        np.testing.assert_allclose(images, sample.x_train[indices] / 255, atol=1e-6)
        seen.append((indices.tolist(), epoch, type(random)))
        return images + 1, labels + 100

    batches = training_batches(sample.x_train[:12], np.arange(12), epoch=5, augment=remember)
    images, labels = batches[1]
    assert images.min() >= 1
    assert seen == [((labels - 100).tolist(), 5, np.random.Generator)]


def test_a_batch_is_augmented_in_the_same_way_each_time(sample):
    """Two threads prepare batches, in any order."""
    batches = training_batches(sample.x_train[:20], np.arange(20), augment=augment)
    later, earlier = batches[1][0], batches[0][0]
    np.testing.assert_array_equal(batches[0][0], earlier)
    np.testing.assert_array_equal(batches[1][0], later)


def test_every_batch_and_epoch_draws_anew():
    def draw(images, labels, indices, epoch, random):
        return random.random(3), labels

    images = np.zeros((20, 1, 1, 3), np.uint8)
    drawn = [
        tuple(batches[step][0])
        for batches in (
            training_batches(images, np.arange(20), epoch=epoch, augment=draw) for epoch in (0, 1)
        )
        for step in range(3)
    ]
    assert len(set(drawn)) == 6


def test_every_epoch_shows_another_variant_of_each_image(sample):
    def epoch_in_order(epoch):
        batches = training_batches(sample.x_train[:20], np.arange(20), epoch=epoch, augment=augment)
        parts = [batches[step] for step in range(len(batches))]
        images, indices = (np.concatenate(part) for part in zip(*parts, strict=True))
        return images[np.argsort(indices)]

    assert (np.abs(epoch_in_order(0) - epoch_in_order(1)).max(axis=(1, 2, 3)) > 0.01).all()
