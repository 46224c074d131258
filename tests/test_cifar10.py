import functools
import gzip
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

from data import cifar10
from data.cifar10 import SAMPLE
from data.dataset import ARRAYS, CIFAR10_SHA256, CLASS_NAMES
from data.download import read_path
from machinery.errors import UsageError
from machinery.options import option_parser, parse_options

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


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_archives_of_all_forms(tmp_path, sample, form):
    folder = write_folder(tmp_path / "cifar-10-batches-py", sample)
    (folder / "readme.html").symlink_to("test_batch")
    (folder / ("long" * 40)).write_text("a name for which there are headers of their own")
    with tarfile.open(tmp_path / "cifar.tar", "w", format=form) as archive:
        for path in (folder, *sorted(folder.iterdir())):
            if len(path.name) < 100 or form != tarfile.USTAR_FORMAT:
                archive.add(path, f"./{path.relative_to(tmp_path)}", recursive=False)
    assert_same_images(read_path(tmp_path / "cifar.tar"), sample)


def test_official_files_may_lie_where_a_run_leaves_its_own(tmp_path, sample, monkeypatch):
    write_folder(tmp_path / "cifar-10-batches-py", sample)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["baseline1.py", "--data", ".", "--out", "runs"])
    assert parse_options(option_parser(100)).out == "runs"


@pytest.mark.parametrize("packed", [True, False])
def test_reads_zip_of_the_official_files(tmp_path, sample, packed):
    if packed:
        write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
        content = {"from the net/cifar-10-python.tar.gz": tmp_path / "cifar-10-python.tar.gz"}
    else:
        folder = write_folder(tmp_path / "cifar-10-batches-py", sample)
        content = {str(path.relative_to(tmp_path)): path for path in folder.iterdir()}
    with zipfile.ZipFile(tmp_path / "cifar.zip", "w") as archive:
        for name, path in content.items():
            archive.write(path, name)
    assert_same_images(read_path(tmp_path / "cifar.zip"), sample)


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
    assert not other.is_cifar10()


@pytest.mark.parametrize("name", CIFAR10_SHA256)
def test_official_are_images_and_labels_all_together(sample, name):
    assert sample._replace(sha256=CIFAR10_SHA256).is_cifar10()
    assert not sample._replace(sha256=CIFAR10_SHA256 | {name: sample.sha256[name]}).is_cifar10()


class Malice:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_pickle_that_asks_for_code_is_refused_by_name(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "data_batch_3").write_bytes(pickle.dumps(Malice(tmp_path / "owned")))
    with pytest.raises(UsageError, match=r"data_batch_3.*mkdir"):
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
    with pytest.raises(UsageError, match=r"there is no file .*data_batch_4"):
        read_path(folder)


def test_missing_member_of_an_archive_is_named(tmp_path, sample):
    members = {name: pickle.dumps(batch) for name, batch in batches(sample).items()}
    del members["data_batch_2"]
    with pytest.raises(UsageError, match="data_batch_2 is missing"):
        read_path(write_archive(tmp_path / "cifar.tar.gz", members))


def test_missing_path_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*nowhere"):
        read_path(tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0, 1_000, 2_000_000])
def test_cut_off_archive_is_refused(tmp_path, sample, kept):
    archive = write_official_archive(tmp_path / "cifar-10-python.tar.gz", sample)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(UsageError, match=archive.name):
        read_path(archive)


def test_cut_off_batch_is_refused(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes()[:5000])
    with pytest.raises(UsageError, match="test_batch"):
        read_path(folder)


def test_pickle_of_something_else_is_refused(tmp_path, sample):
    folder = write_folder(tmp_path / "batches", sample)
    (folder / "data_batch_1").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(UsageError, match="data_batch_1: not a batch of CIFAR-10"):
        read_path(folder)


def test_npz_without_an_array_is_refused(tmp_path, sample):
    np.savez(tmp_path / "half.npz", x_train=sample.x_train, y_train=sample.y_train)
    with pytest.raises(UsageError, match="no array x_test; it needs x_train, y_train, x_test"):
        read_path(tmp_path / "half.npz")


def test_npz_of_floats_is_refused(tmp_path, sample):
    arrays = sample.arrays() | {"x_test": sample.x_test / 255}
    np.savez(tmp_path / "scaled.npz", **arrays)
    with pytest.raises(UsageError, match="need uint8"):
        read_path(tmp_path / "scaled.npz")


def test_npz_with_a_pickle_is_refused(tmp_path, sample):
    arrays = sample.arrays() | {"y_test": np.array([Malice(tmp_path / "owned")], dtype=object)}
    np.savez(tmp_path / "malice.npz", **arrays)
    with pytest.raises(UsageError, match="damaged or foreign"):
        read_path(tmp_path / "malice.npz")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "change", [lambda y: y + 1, lambda y: y % 9, lambda y: np.append(y[:-1], np.uint8(10))]
)
def test_other_labels_than_the_ten_classes_are_refused(tmp_path, sample, change):
    np.savez(tmp_path / "labels.npz", **(sample.arrays() | {"y_test": change(sample.y_test)}))
    with pytest.raises(UsageError, match="not the 10 classes 0 to 9"):
        read_path(tmp_path / "labels.npz")


def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, sample):
    np.savez(tmp_path / "labels.npz", **(sample.arrays() | {"y_test": sample.y_test / 1}))
    with pytest.raises(UsageError, match="test labels are not whole numbers"):
        read_path(tmp_path / "labels.npz")


@pytest.mark.parametrize("content", [b"", b"not a dataset"])
def test_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(UsageError, match="neither"):
        read_path(tmp_path / "notes.txt")


# Whatever else has such a name.


def png(width, height, pixels=b""):
    """A PNG that claims a size; its pixels are all black unless given."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = pixels or zlib.compress(bytes(1000))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def packed_zeros(count):
    """Zeros that take a thousandth of their number."""
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb") as file:
        for _ in range(count // 2**20):
            file.write(bytes(2**20))
    return content.getvalue()


def tar(*members, **pax):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", pax_headers=pax) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def zipped(name, data, method=zipfile.ZIP_DEFLATED, **options):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method, **options) as archive:
        archive.writestr(name, data)
    return content.getvalue()


def claiming(size):
    """A tar whose first member claims to be so long."""
    member = tarfile.TarInfo("data_batch_1")
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)


def encrypted(content):
    """A zip file that says its members are encrypted."""
    changed = bytearray(content)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[content.index(signature) + place] |= 1
    return bytes(changed)


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


HOSTILE = {
    "gzip bomb": lambda: packed_zeros(2**29),
    "gzip bomb in a tar": lambda: gzip.compress(tar(("data_batch_1", packed_zeros(2**29))), 1),
    "tar of a bomb": lambda: gzip.compress(claiming(2**33)),
    "long batch": lambda: tar(("data_batch_1", bytes(40_000_000))),
    "negative size": lambda: claiming(-5),
    "extended header": lambda: gzip.compress(tar(("data_batch_1", b""), comment="x" * 10**7)),
    "many members": lambda: gzip.compress(tar(*((f"{n}", b"") for n in range(5000)))),
    "many folders": lambda: gzip.compress(many_folders(5000)),
    "bitmap": lambda: tar(("test_batch.png", b""), ("data_batch_1.png", bitmap())),
    "link": lambda: tar_with_link(),
    "no gzip": lambda: b"\x1f\x8b" + bytes(1000),
    "bad checksum": lambda: gzip.compress(tar(("data_batch_1", b"x")))[:-8] + bytes(8),
    "huge picture": lambda: tar(("test_batch.png", b""), ("data_batch_1.png", png(12_000, 12_000))),
    "wide picture": lambda: tar(("test_batch.png", b""), ("data_batch_1.png", png(2048, 5000))),
    "long picture": lambda: tar(("test_batch.png", b""), ("data_batch_1.png", png(1024, 10_001))),
    "cut picture": lambda: tar(("test_batch.png", b""), ("data_batch_1.png", png(1024, 10_000))),
    "postscript": lambda: tar(
        ("test_batch.png", b""), ("data_batch_1.png", b"%!PS-Adobe-3.0 EPSF-3.0\n")
    ),
    "encrypted": lambda: encrypted(zipped("x_train.npy", b"x" * 1000)),
    "lzma": lambda: zipped("x_train.npy", b"x" * 1000).replace(b"\x08\0", b"\x0e\0"),
    "unknown method": lambda: zipped("x_train.npy", b"x" * 1000).replace(b"\x08\0", b"\x63\0"),
    "zip bomb": lambda: zipped("x_train.npy", bytes(2**29)),
    "bzip2 bomb": lambda: zipped("x_train.npy", bytes(2**29), zipfile.ZIP_BZIP2).replace(
        struct.pack("<I", 2**29), struct.pack("<I", 1000)
    ),
    "npy of nothing": lambda: zipped("x_train.npy", b""),
    "zip cut off": lambda: zipped("x_train.npy", os.urandom(5000))[-3000:],
    "claims 4 GB": lambda: npz(x_train=np.zeros(4, "u1")).replace(
        b"(4,), }         ", b"(4294967296,), }"
    ),
    "strings": lambda: npz(**dict.fromkeys(ARRAYS, np.array(["deer"]))),
    "numbers": lambda: npz(**dict.fromkeys(ARRAYS, np.array(3, "u1"))),
    "empty arrays": lambda: npz(**dict.fromkeys(ARRAYS, np.zeros((0, 32, 32, 3), "u1"))),
}  # fmt: skip


def tar_with_link():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("data_batch_1")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    return content.getvalue()


def many_folders(count):
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    return count * folder.tobuf()


def bitmap():
    """A picture that Pillow could read, but no PNG."""
    content = io.BytesIO()
    Image.new("RGB", (1024, 5)).save(content, "bmp")
    return content.getvalue()


def refused(function, error=ValueError):
    """The most bytes that Python took while a file was read, and why it was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(error) as refusal:
            function()
        return tracemalloc.get_traced_memory()[1], str(refusal.value)
    finally:
        tracemalloc.stop()


@functools.cache  # some take seconds to make, and to read
def refused_path(name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset"
        path.write_bytes(HOSTILE[name]())
        return refused(lambda: read_path(path), UsageError)


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_and_hostile_files_are_refused_without_taking_memory(name):
    peak, told = refused_path(name)
    assert "dataset: damaged or foreign (" in told and "\n" not in told
    assert peak < 3 * cifar10.MOST_ARCHIVE_BYTES


REASONS = {
    "gzip bomb": "unpacks to more than",
    "long batch": "data_batch_1 is longer than",
    "many members": "more than 100 members",
    "many folders": "more than 100 members",
    "tar of a bomb": "data_batch_1 is cut off",
    "bitmap": "cannot identify image",
    "huge picture": "12000 x 12000 pixels",
    "wide picture": "2048 x 5000 pixels",
    "long picture": "1024 x 10001 pixels",
    "postscript": "cannot identify image",
    "zip bomb": "x_train is longer than",
    "bzip2 bomb": "x_train.npy is not packed with deflate",
    "lzma": "x_train.npy is not packed with deflate",
}


@pytest.mark.parametrize("name", REASONS)
def test_hostile_files_are_refused_for_what_they_are(name):
    assert REASONS[name] in refused_path(name)[1]


def test_archive_is_unpacked_up_to_its_limit_only(monkeypatch):
    bomb = io.BytesIO(packed_zeros(2**26))
    monkeypatch.setattr(cifar10, "MOST_ARCHIVE_BYTES", 2**20)
    peak, told = refused(lambda: cifar10.read_archive(bomb))
    assert peak < 2**24 and told == "it unpacks to more than 1,048,576 bytes"


def test_keywords_of_extended_headers_take_no_memory():
    keywords = {f"{number:x}": "1" for number in range(100_000)}
    archive = tar(("data_batch_1", b""), **keywords)
    peak, told = refused(lambda: cifar10.read_archive(io.BytesIO(archive)))
    assert peak < 4 * len(archive) and told.startswith("data_batch_1: ")


def test_arrays_are_not_longer_together_than_an_archive_may_be(monkeypatch, sample):
    monkeypatch.setattr(cifar10, "MOST_ARCHIVE_BYTES", 3_500_000)  # enough for any one of them
    with pytest.raises(ValueError, match="x_test is longer than"):
        cifar10.read_npz(zipfile.ZipFile(io.BytesIO(npz(**sample.arrays()))))


LABELS = ["[" * 100_000, "{}", '{"a": 1}', "[1.5]", '["1"]', "[true]", "[NaN]", "[[1]]", "\0"]


@pytest.mark.parametrize("labels", [*LABELS, "[1]" * 500_000])
def test_labels_of_the_npm_archive_are_a_list_of_whole_numbers(tmp_path, sample, labels):
    archive = write_npm_archive(tmp_path / "npm.tgz", sample)
    with tarfile.open(archive) as members:
        content = {m.name: members.extractfile(m).read() for m in members}
    write_archive(archive, content | {"package/test_lables.json": labels.encode()})
    with pytest.raises(UsageError, match=r"npm\.tgz: damaged or foreign"):
        read_path(archive)


def test_labels_of_the_npm_archive_are_not_read_if_they_are_too_long(tmp_path, sample):
    row = png(1024, 1, zlib.compress(bytes(1 + 3 * 1024)))
    content = {f"data_batch_{number}.png": row for number in range(1, 6)}
    content |= {"test_batch.png": b"", "train_lables.json": b"[" + b"1," * 500_000 + b"1]"}
    with pytest.raises(UsageError, match=r"train_lables\.json is longer than 1,000,000 bytes"):
        read_path(write_archive(tmp_path / "npm.tgz", content))
