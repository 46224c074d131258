import io
import json
import os
import pickle
import tarfile

from data.cifar10 import CLASS_NAMES, SAMPLE, DatasetError, read_path

import numpy as np
import pytest
from PIL import Image


def assert_same_images(left, right):
    for name, array in left.arrays().items():
        np.testing.assert_array_equal(array, right.arrays()[name], err_msg=name)


def batches(cifar10):
    """The six pickled batches of the official files, with the arrays of `cifar10`."""
    parts = zip(np.split(cifar10.x_train, 5), np.split(cifar10.y_train, 5), strict=True)
    named = {f"data_batch_{number}": part for number, part in enumerate(parts, start=1)}
    named["test_batch"] = cifar10.x_test, cifar10.y_test
    return {
        name: {
            b"data": images.transpose(0, 3, 1, 2).reshape(len(images), 3072),
            b"labels": labels.tolist(),
        }
        for name, (images, labels) in named.items()
    }


def write_folder(folder, cifar10, protocol=2):
    folder.mkdir()
    for name, batch in batches(cifar10).items():
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    return folder


def write_archive(path, members):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_official_archive(path, cifar10):
    return write_archive(
        path,
        {
            f"cifar-10-batches-py/{name}": pickle.dumps(batch, 2)
            for name, batch in batches(cifar10).items()
        },
    )


def write_npm_archive(path, cifar10):
    def png_of_rows(images):
        content = io.BytesIO()
        Image.fromarray(images.reshape(len(images), 1024, 3)).save(content, "png", compress_level=1)
        return content.getvalue()

    members = {
        f"package/data_batch_{number}.png": png_of_rows(images)
        for number, images in enumerate(np.split(cifar10.x_train, 5), start=1)
    }
    members["package/test_batch.png"] = png_of_rows(cifar10.x_test)
    members["package/train_lables.json"] = json.dumps(cifar10.y_train.tolist()).encode()
    members["package/test_lables.json"] = json.dumps(cifar10.y_test.tolist()).encode()
    return write_archive(path, members)


def test_sample_is_balanced_and_small(sample):
    assert np.bincount(sample.y_train).tolist() == [100] * 10
    assert np.bincount(sample.y_test).tolist() == [25] * 10
    assert sample.x_train.shape == (1000, 32, 32, 3)
    assert SAMPLE.stat().st_size < 4 * 2**20


def test_ten_classes_have_names():
    assert len(set(CLASS_NAMES)) == 10 and CLASS_NAMES[4] == "deer"


@pytest.mark.parametrize("protocol", [2, 5])
def test_reads_extracted_batches(tmp_path, sample, protocol):
    folder = write_folder(tmp_path / "cifar-10-batches-py", sample, protocol)
    assert_same_images(read_path(folder), sample)


def test_reads_folder_that_holds_the_extracted_batches(tmp_path, sample):
    write_folder(tmp_path / "cifar-10-batches-py", sample)
    assert_same_images(read_path(tmp_path), sample)


def test_reads_official_archive(tmp_path, sample):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    assert_same_images(read_path(archive), sample)


def test_reads_npz_with_column_labels(tmp_path, sample):
    arrays = sample.arrays()
    arrays["y_train"] = arrays["y_train"].reshape(-1, 1)
    np.savez(tmp_path / "cifar10.npz", **arrays)
    assert_same_images(read_path(tmp_path / "cifar10.npz"), sample)


def test_reads_npm_archive(tmp_path, sample):
    assert_same_images(read_path(write_npm_archive(tmp_path / "npm.tgz", sample)), sample)


def test_one_pixel_makes_other_images(tmp_path, sample):
    arrays = {name: array.copy() for name, array in sample.arrays().items()}
    arrays["x_test"][7, 5, 3, 1] ^= 1
    np.savez(tmp_path / "cifar10.npz", **arrays)
    other = read_path(tmp_path / "cifar10.npz")
    assert other.sha256["x_test"] != sample.sha256["x_test"]
    assert other.sha256 | {"x_test": None} == sample.sha256 | {"x_test": None}
    assert not other.is_official()


class Malice:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_pickle_that_asks_for_code_is_refused_by_name(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "data_batch_3").write_bytes(pickle.dumps(Malice(tmp_path / "owned")))
    with pytest.raises(DatasetError, match=r"data_batch_3.*mkdir"):
        read_path(folder)
    assert not (tmp_path / "owned").exists()


def test_archive_writes_nothing_to_disk(tmp_path, sample, monkeypatch):
    members = {f"../../{name}": pickle.dumps(batch) for name, batch in batches(sample).items()}
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    read_path(write_archive(tmp_path / "climbing.tar.gz", members))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["climbing.tar.gz"]


def test_missing_batch_is_named(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "data_batch_4").unlink()
    with pytest.raises(DatasetError, match="data_batch_4 is missing"):
        read_path(folder)


def test_missing_member_of_an_archive_is_named(tmp_path, sample):
    members = {name: pickle.dumps(batch) for name, batch in batches(sample).items()}
    del members["data_batch_2"]
    with pytest.raises(DatasetError, match="data_batch_2 is missing"):
        read_path(write_archive(tmp_path / "cifar.tar.gz", members))


def test_missing_path_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere: no such file or folder"):
        read_path(tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0, 1_000, 2_000_000])
def test_cut_off_archive_is_refused(tmp_path, sample, kept):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(DatasetError, match=archive.name):
        read_path(archive)


def test_cut_off_batch_is_refused(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:5000])
    with pytest.raises(DatasetError, match="test_batch"):
        read_path(folder)


def test_pickle_of_something_else_is_refused(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "data_batch_1").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(DatasetError, match="data_batch_1: not a CIFAR-10 batch"):
        read_path(folder)


def test_npz_without_an_array_is_refused(tmp_path, sample):
    np.savez(tmp_path / "half.npz", x_train=sample.x_train, y_train=sample.y_train)
    with pytest.raises(DatasetError, match="x_test"):
        read_path(tmp_path / "half.npz")


def test_npz_of_floats_is_refused(tmp_path, sample):
    arrays = sample.arrays() | {"x_test": sample.x_test / 255}
    np.savez(tmp_path / "scaled.npz", **arrays)
    with pytest.raises(DatasetError, match="uint8"):
        read_path(tmp_path / "scaled.npz")


def test_npz_with_a_pickle_is_refused(tmp_path, sample):
    arrays = sample.arrays() | {"y_test": np.array([Malice(tmp_path / "owned")], dtype=object)}
    np.savez(tmp_path / "malice.npz", **arrays)
    with pytest.raises(DatasetError, match="damaged or foreign"):
        read_path(tmp_path / "malice.npz")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("change", [lambda y: y + 1, lambda y: y % 9])
def test_other_labels_than_the_ten_classes_are_refused(tmp_path, sample, change):
    np.savez(tmp_path / "labels.npz", **(sample.arrays() | {"y_test": change(sample.y_test)}))
    with pytest.raises(DatasetError, match="ten classes"):
        read_path(tmp_path / "labels.npz")


@pytest.mark.parametrize("content", [b"", b"not a dataset"])
def test_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(DatasetError, match="neither"):
        read_path(tmp_path / "notes.txt")
