"""Files are read without trusting them, and written all or nothing."""

import errno
import io
import math
import os
import re
import resource
import socket
import struct
import zipfile
import zlib
from pathlib import Path

from machinery import files
from machinery.errors import DamagedError, UsageError
from machinery.files import (
    archive,
    dated,
    limited_memory,
    open_zip,
    read_array,
    reading,
    remove_partial_files,
    replace_when_complete,
)

import numpy as np
import pytest
import tensorflow as tf


def refused(path, most_bytes=1000):
    with pytest.raises(UsageError) as refusal, reading(path, most_bytes) as file:
        file.read()
    return str(refusal.value)


def test_missing_files_and_folders_are_told_apart(tmp_path):
    assert refused(tmp_path / "nowhere") == f"there is no file {tmp_path}/nowhere"
    assert refused(tmp_path) == f"{tmp_path} is a folder, not a file"
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert "there is no file" in refused(tmp_path / "broken")


def test_what_is_no_regular_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/zero", "/dev/null"):
            assert refused(path) == f"{path} is not a regular file"


def test_too_long_files_are_refused_before_they_are_read(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10**12)
    assert "longer than the 1,000 bytes" in refused(tmp_path / "sparse")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such array"), "damaged or foreign (no such array)"),
        (KeyError("x"), "damaged or foreign ('x')"),
        (AttributeError("a"), "damaged or foreign (a)"),
        (RecursionError("deep"), "damaged or foreign (deep)"),
        (RuntimeError("encrypted"), "damaged or foreign (encrypted)"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), "damaged or foreign ('utf-8' codec"),
        (struct.error("short"), "damaged or foreign (short)"),
        (zlib.error("Error -3"), "damaged or foreign (Error -3)"),
        (EOFError(), "damaged or foreign (EOFError)"),
        (OSError("truncated"), "damaged or foreign (truncated)"),
        (OSError(errno.EINVAL, "negative seek"), "damaged or foreign ([Errno 22] negative seek)"),
        (ValueError("first\nsecond" + 1000 * "x"), "damaged or foreign (first)"),
        (OSError(errno.EACCES, "denied"), "Permission denied"),
        (OSError(errno.EIO, "i/o"), "Input/output error"),
        (OSError(errno.ENOSPC, "full"), "No space left on device"),
        (BlockingIOError(errno.EAGAIN, "locked"), "is in use by another program"),
        (MemoryError(), "there is too little memory to read it, or it takes more than 3 GB"),
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
            "there is too little memory to read it, or it takes more than 3 GB",
        ),
        (UsageError("something else"), "something else"),
    ],
)
def test_what_goes_wrong_is_told_for_what_it_is(tmp_path, error, told):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UsageError) as refusal, reading(tmp_path / "file", 1000):
        raise error
    message = str(refusal.value)
    assert told in message and "\n" not in message and len(message) < 500
    assert isinstance(refusal.value, DamagedError) == ("damaged" in told)
    assert str(tmp_path / "file") in message or isinstance(error, UsageError)


def test_no_limit_of_memory_is_told_where_there_is_none(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UsageError) as refusal, reading(tmp_path / "file", 1000, math.inf):
        raise MemoryError
    assert str(refusal.value).endswith("there is too little memory to read it")


def test_ctrl_c_is_not_the_files_fault(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt), reading(tmp_path / "file", 1000):
        raise KeyboardInterrupt


# Arrays.


def npy(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">f4", "?", "c16"])
def test_arrays_are_read_as_numpy_reads_them(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for variant in (array, np.asfortranarray(array), array[..., 0], array[0, 0, 0]):
        np.testing.assert_array_equal(read_array(io.BytesIO(npy(variant))), variant)


def test_arrays_of_anything_but_numbers_are_refused():
    for array in (
        np.array([object()]),
        np.zeros(3, "u1,f4"),
        np.array(["x"]),
        np.zeros(2, "M8[s]"),
    ):
        with pytest.raises(ValueError, match="something else than numbers"):
            read_array(io.BytesIO(npy(array)))


@pytest.mark.parametrize("shape", ["(4000000000,)", "(-4,)", "(2, 3)", "(99999999999999999999,)"])
def test_array_that_is_not_as_long_as_it_says_is_refused(shape):
    content = npy(np.arange(4, dtype="u1"))
    padded = content.replace(b"(4,), }" + b" " * 30, f"{shape}, }}".encode().ljust(37))
    assert len(padded) == len(content) and padded != content
    with pytest.raises((ValueError, OverflowError)):
        read_array(io.BytesIO(padded))


def test_block_takes_no_more_memory_than_it_may():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(2**26):
        bytearray(2**26)
        with pytest.raises(MemoryError):
            bytearray(2**28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_memory_is_limited_while_a_file_is_read(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with reading(tmp_path / "result.json", 1000):
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


# Zip archives.


def zip_of(count):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(count):
            archive.writestr(f"arrays/{number}.npy", b"x")
    return content.getvalue()


def with_comment(content):
    content = io.BytesIO(content)
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = b"a comment"
    return content.getvalue()


def claiming_members(count):
    """An archive that says it has members, and has what it says of each, but not their content."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"x"
    end = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, *[min(count, 65_535)] * 2, len(entry) * count, 0, 0
    )
    return entry * count + end


def zip64(count, between=b"", before=0, listing_bytes=4 * b"\xff"):
    content = claiming_members(count)
    listing, end = content[:-22], content[-22:]
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(listing), 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(listing) + before, 1)
    return listing + between + record + locator + end[:12] + listing_bytes + end[16:]


@pytest.mark.parametrize("count", [0, 1, 1000, 66_000])
def test_archives_are_opened_as_python_does(count):
    content = io.BytesIO(zip_of(count))
    assert open_zip(content, 10_000_000).namelist() == zipfile.ZipFile(content).namelist()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (claiming_members(30_000), "too many members"),
        (zip64(30_000), "too many members"),
        (zip64(30_000, listing_bytes=4 * b"\0"), "too many members"),
        (zip64(1, between=b"x"), "something else after its list"),
        (zip64(1).replace(b"PK\6\6", b"PK\6\5"), "something else after its list"),
        (zip64(1, before=1), "something else after its list"),
        (zip64(1)[70:], "something else after its list"),
        (with_comment(claiming_members(30_000)), "one with a comment"),
        (zip_of(1) + bytes(100), "no zip archive"),
        (zip_of(1)[:-1], "cut off"),
    ],
)
def test_what_an_archive_says_of_its_members_is_not_read_if_it_is_too_long(content, reason):
    with pytest.raises(ValueError, match=reason):
        open_zip(io.BytesIO(content))


def test_file_too_short_for_an_archive_is_refused(tmp_path):
    (tmp_path / "short.zip").write_bytes(b"PK\5\6")
    with (
        pytest.raises(UsageError, match="damaged or foreign"),
        reading(tmp_path / "short.zip", 1000) as file,
    ):
        open_zip(file)


# Writing.


def test_interrupted_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), replace_when_complete(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_on_the_disk_before_it_replaces_the_earlier_one(tmp_path, monkeypatch):
    order = []

    def note(name, function):
        def noted(*arguments):
            order.append(name)
            return function(*arguments)

        return noted

    monkeypatch.setattr(files.os, "fsync", note("fsync", files.os.fsync))
    monkeypatch.setattr(files.os, "replace", note("replace", files.os.replace))
    with replace_when_complete(tmp_path / "run.json") as temporary:
        temporary.write_text("whole")
    assert order == ["fsync", "replace", "fsync"]


def test_what_killed_processes_were_just_writing_is_removed(tmp_path):
    dead = 2**22  # no process of Linux has a number as high
    kept = [f".{other}.{dead}.csv" for other in ("other", "run.checkpoint")]
    kept += ["run.csv", f".run.{dead}.json", ".run.csv"]
    for name in [*kept, f".run.{dead}.csv", f".run.{dead + 1}.csv", f".run.{10**30}.csv"]:
        (tmp_path / name).write_text("")
    with replace_when_complete(tmp_path / "run.csv") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_a_living_process_is_just_writing_stays(tmp_path):
    theirs = tmp_path / f".run.{os.getppid()}.csv"
    theirs.write_text("half")
    remove_partial_files(tmp_path / "run.csv")
    assert theirs.exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("Can't write data (file write failed)"), "file write failed"),  # HDF5's
        (RuntimeError("Slist already enabled?"), "Slist"),  # HDF5's, too, on a full disk
    ],
)
def test_what_can_not_be_written_is_named(tmp_path, error, told):
    (tmp_path / "run.csv").write_text("before")
    refused = pytest.raises(UsageError, match=rf"run\.csv can't be written: .*{re.escape(told)}")
    with refused, replace_when_complete(tmp_path / "run.csv") as temporary:
        temporary.write_text("half")
        raise error
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_what_can_not_be_moved_is_named_with_where_to(tmp_path, monkeypatch):
    (tmp_path / "run.csv").write_text("mine")

    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UsageError, match=r"can't move .*run\.csv to .*earlier: Permission denied"):
        archive([tmp_path / "run.csv"], "2026-01-02", tmp_path / "earlier")


def test_files_of_the_users_own_are_not_taken_for_left_overs(tmp_path):
    mine = tmp_path / ".run.2026-01-01 notes.csv"
    mine.write_text("mine")
    remove_partial_files(tmp_path / "run.csv")
    assert mine.exists()


def test_characters_that_stand_for_others_in_a_name_stand_for_themselves(tmp_path):
    for name in (f".run1.{2**22}.csv", f".run[1].{2**22}.csv"):
        (tmp_path / name).write_text("")
    remove_partial_files(tmp_path / "run[1].csv")
    assert [path.name for path in tmp_path.iterdir()] == [f".run1.{2**22}.csv"]


def test_dated_names_are_free(tmp_path):
    first = dated(tmp_path / "run.png", "2026-01-02T03:04:05", tmp_path / "earlier")
    assert first == tmp_path / "earlier" / "run-2026-01-02T030405.png"
    first.write_text("")
    second = dated(tmp_path / "run.png", "2026-01-02T03:04:05", tmp_path / "earlier")
    assert second != first and second.suffix == ".png" and not second.exists()


def test_date_is_no_path(tmp_path):
    """Python reads a time with any character between day and hour."""
    target = dated(tmp_path / "run.png", "2026-01-02/03:04:05", tmp_path / "earlier")
    assert target == tmp_path / "earlier" / "run-2026-01-02030405.png"
