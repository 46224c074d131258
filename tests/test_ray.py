"""Runs in a real Ray cluster of two nodes on this machine, which are killed for real."""

import os
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path

from conftest import (
    ROOT,
    TINY,
    assert_refused,
    call,
    ctrl_c_after,
    finish,
    numbers,
    result,
    run,
    start,
)
from machinery.lock import owner_of
from machinery.records import RunFiles

import numpy as np
import pytest

BASELINE1 = ("run_all.py", "baseline1")
LONG = (*TINY, "--epochs", 20)  # long enough to be interrupted


def test_missing_ray_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "machinery.ray_jobs", raising=False)
    assert_refused(call(*BASELINE1, *TINY, "--ray", cwd=tmp_path), "pip install ray")


@pytest.mark.parametrize("address", ["baseline2", ":6379", "host:", "ray://host:10001"])
def test_bad_address_is_refused(tmp_path, address):
    assert_refused(call(*BASELINE1, "--ray", address, cwd=tmp_path), f"'{address}' is neither")


@pytest.fixture(scope="module")
def ray_jobs():
    pytest.importorskip("ray")
    from machinery import ray_jobs

    return ray_jobs


def test_address_without_a_cluster_is_refused(tmp_path, ray_jobs):
    ended = call(*BASELINE1, *TINY, "--ray", "127.0.0.1:9", cwd=tmp_path)
    assert_refused(ended, "no Ray cluster at 127.0.0.1:9")


@pytest.mark.parametrize(
    ("nodes", "jobs", "cpus", "gpus", "places"),
    [
        ([{"CPU": 2}], 2, 1, 0, 2),
        ([{"CPU": 0}, {"CPU": 4}, {"CPU": 9}, {}], 2, 2, 0, 6),
        ([{"CPU": 2}], 3, 1, 0, 2),
        ([{"CPU": 64}, {"CPU": 16, "GPU": 4}], 2, 8, 1, 2),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 4}], 4, 4, 1, 6),
    ],
)
def test_cluster_is_divided_among_runs(ray_jobs, nodes, jobs, cpus, gpus, places):
    assert ray_jobs.divide(nodes, jobs) == ({"num_cpus": cpus, "num_gpus": gpus}, places)


def test_cluster_without_room_is_refused(ray_jobs):
    with pytest.raises(ray_jobs.UsageError, match="no node"):
        ray_jobs.divide([{"CPU": 0}], 1)


def test_nodes_are_told_what_they_would_choose_otherwise(ray_jobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = Namespace(mixed_precision=True, data="mine.npz", sample=False)
    mine = ["--mixed-precision", "--data", str(tmp_path / "mine.npz")]
    assert ray_jobs.same_on_every_node(options) == mine
    options.data = None
    assert ray_jobs.same_on_every_node(options) == mine[:1]
    monkeypatch.setenv("CIFAR10_PATH", "mine.npz")
    assert ray_jobs.same_on_every_node(options) == mine
    options.sample, options.mixed_precision = True, False
    assert ray_jobs.same_on_every_node(options) == ["--no-mixed-precision"]


def test_checkpoint_stays_while_the_node_is_saving_the_next(ray_jobs, tmp_path):
    node, here = (RunFiles.of(tmp_path / name, "baseline1") for name in ("node", "here"))
    for files in (node, here):
        files.result.parent.mkdir()
    assert ray_jobs.pack(node) is None
    here.checkpoint.write_text("first")
    for path in (node.result, node.history, node.checkpoint_before):
        path.write_text("second")
    ray_jobs.unpack(ray_jobs.pack(node), here)
    assert here.checkpoint.read_text() == "first"
    for path in (here.result, here.history, here.checkpoint_before):
        assert path.read_text() == "second"


@pytest.fixture(scope="module")
def cluster(ray_jobs):
    """Two nodes with a CPU each, beside a head that has none."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name in ("KERAS_HOME", "USERS_KERAS_HOME"):  # what a real node would not have
            patch.delenv(name, raising=False)
        cluster = Cluster()
        for cpus in (0, 1, 1):
            add_node(cluster, cpus)
        yield cluster
        cluster.shutdown()


def add_node(cluster, cpus):
    """Start a node. Ray allows it 30 seconds, too few on a busy machine; so try several times."""
    for attempt in range(5):
        try:
            return cluster.add_node(num_cpus=cpus)
        except Exception:  # just what Ray raises
            if attempt == 4:
                raise


def processes():
    """The experiments that a cluster runs on this machine: process number by seed."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:  # it has just ended
            continue
        if any("/working_dir_files/" in word and word.endswith("baseline1.py") for word in words):
            found[int(words[words.index("--seed") + 1])] = int(path.parent.name)
    return found


def parent(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def wait_until(condition, process=None):
    deadline = time.monotonic() + 300
    while not condition():
        assert process is None or process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid):
    return Path(f"/proc/{pid}").exists()


def left_behind(folder):
    return {path.relative_to(folder) for path in folder.glob("runs/**/*")}


def test_lost_worker_and_lost_node(tmp_path, cluster):
    """Both runs are resumed, and end like uninterrupted ones."""
    arguments = (*BASELINE1, "--seeds", "0,1", *LONG)
    process = start(*arguments, "--ray", cluster.address, cwd=tmp_path)
    folders = tmp_path / "runs", tmp_path / "runs/seed_1"
    wait_until(lambda: all((path / "baseline1.csv").exists() for path in folders), process)
    running = processes()
    for pid in running.values():  # which they will be for ever unless they are killed
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all((path / "baseline1.checkpoint.keras").exists() for path in folders))
    assert [owner_of(path / "baseline1.lock") for path in folders] == [process.pid] * 2
    os.kill(parent(running[0]), signal.SIGKILL)
    raylet = parent(parent(running[1]))
    (node,) = (
        node
        for node in cluster.worker_nodes
        if node.all_processes["raylet"][0].process.pid == raylet
    )
    cluster.remove_node(node, allow_graceful=False)
    ended = finish(process)
    add_node(cluster, 1)
    assert ended.code == 0, ended
    wait_until(lambda: not any(map(is_running, running.values())))

    alone = tmp_path / "alone"
    alone.mkdir()
    assert run(*arguments, "--jobs", 2, cwd=alone, TF_NUM_INTRAOP_THREADS="1").code == 0
    for folder in folders:
        log = (folder / "baseline1.log").read_text()
        assert "Resuming after epoch" in log and "Lost: " in log
        assert str(ROOT / "experiments") not in log  # the nodes have their own copy
        there = alone / folder.relative_to(tmp_path)
        assert numbers(folder / "baseline1.csv") == numbers(there / "baseline1.csv")
        here = result(folder / "baseline1.json")
        assert here["hardware"]["cores"] == 1
        assert here["test_accuracy"] == result(there / "baseline1.json")["test_accuracy"]
    assert left_behind(tmp_path) == left_behind(alone)


def test_run_whose_report_is_lost_on_its_way_is_lost(tmp_path, cluster, ray_jobs, monkeypatch):
    def report_much(*run):
        yield None, "", [bytes(2**26)]
        time.sleep(300)

    monkeypatch.setattr(ray_jobs, "run_on_node", report_much)
    monkeypatch.setattr(ray_jobs, "ROOT", tmp_path)  # no code need be sent
    node = cluster.add_node(num_cpus=1, resources={"doomed": 1})
    run = Namespace(settings={}, options=Namespace(mixed_precision=False, data=None, sample=True))
    job = Namespace(
        files=RunFiles.of(tmp_path, "baseline1"), name="baseline1", seed=0, fold=None, run=run,
        log=tmp_path / "baseline1.log",
    )  # fmt: skip
    ray_jobs.connect(cluster.address)
    try:
        task = ray_jobs.Task(job, ["baseline1.py"], {"num_cpus": 1, "resources": {"doomed": 1}})
        wait_until(task.reports.next_ready)
        assert task.poll() is None  # which asks for the report
        time.sleep(0.03)
        cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: task.poll() is not None)
    finally:
        ray_jobs.ray.shutdown()
    assert task.returncode == -signal.SIGKILL and "Lost: " in job.log.read_text()


def test_failed_runs_are_told_and_the_others_go_on(tmp_path, cluster):
    with ctrl_c_after(1):  # unfinished, and of other settings: in the way
        call("experiments/baseline1.py", *TINY, "--epochs", 2, cwd=tmp_path)
    call("experiments/baseline2.py", *TINY, "--epochs", 2, cwd=tmp_path)
    runs = "run_all.py", "baseline1", "baseline2", *TINY, "--epochs", 1
    ended = run(*runs, "--ray", cluster.address, cwd=tmp_path)
    assert ended.code == 2
    assert "baseline1 (0 of 1 epochs): exit code 2, see runs/baseline1.log" in ended.errors
    assert "is a run that is not finished" in (tmp_path / "runs/baseline1.log").read_text()
    assert result(tmp_path / "runs/baseline1.json")["settings"]["epochs"] == 2
    assert result(tmp_path / "runs/baseline2.json")["epochs_trained"] == 1
    (earlier,) = tmp_path.glob("runs/earlier/baseline2-*.json")
    assert result(earlier)["epochs_trained"] == 2


def test_run_that_fails_on_its_node_leaves_an_earlier_one_alone(tmp_path, cluster, sample):
    call("experiments/baseline1.py", *TINY, "--epochs", 1, cwd=tmp_path)
    np.savez(tmp_path / "mine.npz", **sample.arrays())
    before = left_behind(tmp_path)
    mine = "/proc/self/cwd/mine.npz"  # there for the runner, but not on a node, which is elsewhere
    ended = run(*BASELINE1, "--data", mine, "--limit", 20, "--ray", cluster.address, cwd=tmp_path)
    assert ended.code == 2
    assert "exit code 2, see runs/baseline1.log" in ended.errors
    log = tmp_path / "runs/baseline1.log"
    assert f"there is no file {mine}" in log.read_text()
    assert left_behind(tmp_path) == before | {log.relative_to(tmp_path)}


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_a_cluster_of_its_own(tmp_path, ray_jobs, signal_number):
    command = (*BASELINE1, *LONG, "--ray")
    process = start(*command, cwd=tmp_path)
    wait_until((tmp_path / "runs/baseline1.checkpoint.keras").exists, process)
    running = processes()
    process.send_signal(signal_number)
    ended = finish(process)
    assert ended.code == 130, ended
    assert "To go on, run the same command" in ended.errors and "Traceback" not in ended.errors
    wait_until(lambda: not any(map(is_running, running.values())))
    assert owner_of(tmp_path / "runs/baseline1.lock") is None
    assert not result(tmp_path / "runs/baseline1.json")["finished"]

    ended = run(*command, cwd=tmp_path)
    assert ended.code == 0, ended
    assert "Resuming after epoch" in (tmp_path / "runs/baseline1.log").read_text()
    assert len(numbers(tmp_path / "runs/baseline1.csv")) == 20
