from data.download import find_dataset
from data.splits import Fold, balanced_indices, deal_into_folds, hold_out, train_val_test_split
from machinery.errors import UsageError

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


def test_hold_out_of_few_classes_leaves_most_images_to_train_on():
    labels = keras.utils.to_categorical(np.arange(12) % 2)
    (_, kept), (_, held_out) = hold_out(np.zeros((12, 8, 8, 3)), labels)
    assert kept.sum(axis=0).tolist() == [5, 5] and held_out.sum(axis=0).tolist() == [1, 1]


def test_hold_out_takes_a_tenth_of_each_class_however_uneven_they_are():
    labels = keras.utils.to_categorical([0] * 100 + [1] * 19 + [2] * 5)
    (_, kept), (_, held_out) = hold_out(np.zeros((124, 8, 8, 3)), labels)
    assert kept.sum(axis=0).tolist() == [90, 18, 4]
    assert held_out.sum(axis=0).tolist() == [10, 1, 1]


@pytest.mark.parametrize("fold", [None, Fold(1, 2), Fold(2, 2)])
def test_no_class_is_held_out_entirely(fold):
    labels = keras.utils.to_categorical([0] * 5 + [1] + [2] * 2)
    with pytest.raises(UsageError, match=r"the class fr\\x1bog has one training image"):
        hold_out(np.zeros((8, 8, 8, 3)), labels, fold, ["cat", "fr\x1bog", "dog"])


@pytest.mark.parametrize(("images", "count"), [(1000, 5), (1000, 7), (20, 5), (37, 10), (20, 20)])
def test_folds_are_of_equal_size_and_have_equally_many_of_each_class(sample, images, count):
    labels = sample.y_train[balanced_indices(sample.y_train, images)]
    folds = deal_into_folds(labels, count)
    sizes = np.bincount(folds, minlength=count + 1)
    assert sizes[0] == 0 and len(sizes) == count + 1 and np.ptp(sizes[1:]) <= 1
    for label in range(10):
        of_class = np.bincount(folds[labels == label], minlength=count + 1)
        assert np.ptp(of_class[1:]) <= 1


def test_folds_are_dealt_in_the_order_of_the_images():
    labels = np.tile(np.array([1, 0], np.uint8), 50)
    folds = deal_into_folds(labels, 3)
    assert folds[labels == 0].tolist() == [1, 2, 3] * 16 + [1, 2]
    assert folds[labels == 1].tolist() == [3, 1, 2] * 16 + [3, 1]


def test_every_image_is_held_out_in_exactly_one_fold(sample):
    one_hot = keras.utils.to_categorical(sample.y_train, 10)
    held_out = []
    for number in (1, 2, 3):
        (kept, _), (fold, labels) = hold_out(sample.x_train, one_hot, Fold(number, 3))
        assert len(kept) + len(fold) == 1000 and len(labels) == len(fold)
        held_out += [image.tobytes() for image in fold]
        assert not {image.tobytes() for image in kept} & {image.tobytes() for image in fold}
    assert sorted(held_out) == sorted(image.tobytes() for image in sample.x_train)


def test_more_folds_than_images_are_refused():
    with pytest.raises(UsageError, match="3 training images are too few for 4 folds"):
        deal_into_folds(np.array([0, 1, 2], np.uint8), 4)


@pytest.mark.parametrize("text", ["1/2", "2/2", "100/100"])
def test_a_fold_is_written_as_it_is_read(text):
    assert str(Fold.parse(text)) == text


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "1/101", "5", "1/5/5", "-1/5", "a/b", ""])
def test_what_is_no_fold_is_refused(text):
    with pytest.raises(ValueError, match="is not a fold like 1/5"):
        Fold.parse(text)


@pytest.mark.dataset
def test_sample_is_the_first_images_of_each_class(sample):
    full = find_dataset()
    train = balanced_indices(full.y_train, 1000)
    test = balanced_indices(full.y_test, 250)
    np.testing.assert_array_equal(full.x_train[train], sample.x_train)
    np.testing.assert_array_equal(full.y_train[train], sample.y_train)
    np.testing.assert_array_equal(full.x_test[test], sample.x_test)
    np.testing.assert_array_equal(full.y_test[test], sample.y_test)


def six_and_four_images():
    """Training and test images whose pixels tell which one each is, and their labels."""
    images = np.arange(10, dtype=np.uint8).reshape(-1, 1, 1, 1)
    labels = keras.utils.to_categorical(np.arange(10) % 2, 2)
    return (images[:6], labels[:6]), (images[6:], labels[6:])


@pytest.mark.parametrize(
    ("evaluated_on", "fold", "expected"),
    [
        ("test", None, ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9], [6, 7, 8, 9])),
        ("validation", None, ([2, 3, 4, 5], [0, 1], [6, 7, 8, 9])),
        ("validation", Fold(2, 3), ([0, 1, 4, 5], [2, 3], [6, 7, 8, 9])),
        (None, None, ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [], [])),
    ],
)
def test_images_are_for_training_validation_and_test(evaluated_on, fold, expected):
    parts = train_val_test_split(*six_and_four_images(), evaluated_on, fold)
    assert tuple(images.flatten().tolist() for images, _ in parts) == expected
    for images, labels in parts:
        assert labels.argmax(axis=1).tolist() == (images.flatten() % 2).tolist()
