from data.download import find_cifar10
from data.splits import balanced_indices, hold_out

import keras
import numpy as np
import pytest


@pytest.mark.parametrize("count", [10, 37, 500, 1000])
def test_balanced_indices_take_equally_many_of_each_class(sample, count):
    indices = balanced_indices(sample.y_train, count)
    per_class = np.bincount(sample.y_train[indices], minlength=10)
    assert len(set(indices)) == count
    assert per_class.max() - per_class.min() <= 1


def test_balanced_indices_are_the_first_of_each_class_in_order():
    labels = np.array([2, 0, 0, 0, 1, 2, 1, 0], np.uint8)
    assert balanced_indices(labels, 3).tolist() == [0, 1, 4]
    assert balanced_indices(labels, 6).tolist() == [0, 1, 2, 4, 5, 6]


def test_classes_that_run_out_leave_their_place_to_the_others():
    labels = np.array([0, 1, 1, 1], np.uint8)
    assert balanced_indices(labels, 3).tolist() == [0, 1, 2]


def test_hold_out_splits_a_balanced_tenth_off(sample):
    one_hot = keras.utils.to_categorical(sample.y_train, 10)
    (kept, kept_labels), (held_out, held_out_labels) = hold_out(sample.x_train, one_hot)
    assert (len(kept), len(held_out)) == (900, 100)
    assert held_out_labels.sum(axis=0).tolist() == [10] * 10
    assert kept_labels.sum(axis=0).tolist() == [90] * 10
    every = {image.tobytes() for image in sample.x_train}
    assert {image.tobytes() for image in (*kept, *held_out)} == every


def test_hold_out_keeps_images_and_labels_together(sample):
    one_hot = keras.utils.to_categorical(sample.y_train, 10)
    label_of = {
        image.tobytes(): label for image, label in zip(sample.x_train, sample.y_train, strict=True)
    }
    for images, labels in hold_out(sample.x_train, one_hot):
        expected = [label_of[image.tobytes()] for image in images]
        assert labels.argmax(axis=1).tolist() == expected


def test_hold_out_of_few_images_still_has_every_class(sample):
    few = balanced_indices(sample.y_train, 20)
    one_hot = keras.utils.to_categorical(sample.y_train[few], 10)
    _, (_, held_out_labels) = hold_out(sample.x_train[few], one_hot)
    assert held_out_labels.sum(axis=0).tolist() == [1] * 10


@pytest.mark.dataset
def test_sample_is_the_first_images_of_each_class(sample):
    full = find_cifar10()
    train = balanced_indices(full.y_train, 1000)
    test = balanced_indices(full.y_test, 250)
    np.testing.assert_array_equal(full.x_train[train], sample.x_train)
    np.testing.assert_array_equal(full.y_train[train], sample.y_train)
    np.testing.assert_array_equal(full.x_test[test], sample.x_test)
    np.testing.assert_array_equal(full.y_test[test], sample.y_test)
