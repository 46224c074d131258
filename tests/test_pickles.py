"""Pickled batches: those that people have, and those that somebody has crafted."""

import os
import pickle
import struct
import tracemalloc

from data.pickles import describe, read_batch

import numpy as np
import pytest

N = 20


@pytest.fixture
def batch(sample):
    """Pixels in the official files' order, and labels, of 20 real images."""
    pixels = sample.x_train[:N].transpose(0, 3, 1, 2).reshape(N, 3072).copy()
    return {b"data": pixels, b"labels": sample.y_train[:N].tolist()}


def python_2_batch(pixels, labels, dtype=b"U\x02u1", dtype_state=b"", shape=None, fortran=b"\x89"):
    """A batch as Python 2's cPickle has written the official files, opcode by opcode."""
    rows, columns = shape or pixels.shape
    raw = pixels.tobytes()
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03"
        b"U\x06labelsq\x04]q\x05(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08"
        b"K\x00\x85U\x01b\x87Rq\x09(K\x01"
        + b"J" + struct.pack("<i", rows) + b"J" + struct.pack("<i", columns) + b"\x86"
        b"cnumpy\ndtype\nq\x0a" + dtype + b"K\x00K\x01\x87Rq\x0b" + dtype_state
        + fortran + b"T" + struct.pack("<I", len(raw)) + raw + b"tbu."
    )  # fmt: skip


def assert_same(read, batch):
    pixels, labels = read
    assert pixels == batch[b"data"].tobytes() and labels == batch[b"labels"]


def test_official_files_of_python_2_are_read(batch):
    state = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    pickled = python_2_batch(batch[b"data"], batch[b"labels"], dtype_state=state)
    unpickled = pickle.loads(pickled, encoding="bytes")  # it is a pickle that NumPy understands
    np.testing.assert_array_equal(unpickled[b"data"], batch[b"data"])
    assert_same(read_batch(pickled), batch)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_batches_that_were_pickled_again_are_read(batch, protocol):
    assert_same(read_batch(pickle.dumps(batch, protocol)), batch)
    as_text = {key.decode(): value for key, value in batch.items()}
    assert_same(read_batch(pickle.dumps(as_text, protocol)), batch)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [{}, [], (), {b"a": 1}, [2], (3,), {b"b": [[4], ({b"c": 5},)]}])
def test_short_lists_and_dicts_are_read(value, protocol):
    """Pickle has operations of their own for what is empty, or has one item."""
    assert describe(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("missing", [b"data", b"labels"])
def test_batch_that_lacks_something_is_refused(batch, missing):
    del batch[missing]
    refused(pickle.dumps(batch), "needs data and labels")


def test_batch_that_breaks_off_is_refused(batch):
    refused(pickle.dumps(batch)[:-1], "pickle exhausted before seeing STOP")


def test_bytes_in_another_encoding_are_refused(batch):
    pickled = pickle.dumps(batch, 2)
    assert b"latin1" in pickled
    refused(pickled.replace(b"latin1", b"latin9"), "another encoding than latin1")


class Malice:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_description_calls_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"posix\.mkdir, which image data never needs"):
        describe(pickle.dumps(Malice(os.mkdir, str(tmp_path / "owned"))))
    assert not (tmp_path / "owned").exists()


def test_numpy_is_not_called_either():
    call = describe(pickle.dumps(np.dtype("u1"), 2))
    assert (call.function, call.state[0]) == ("numpy dtype", 3)


# What NumPy would obey: bytes declared to be objects, fields, strides. Here all of it is ignored,
# and the bytes are pixels, or refused.
DTYPE_STATES = {
    "object flag": b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb",
    "structured": b"(K\x03U\x01|NU\x01x\x85}U\x01xcnumpy\ndtype\nU\x02O8K\x00K\x01\x87RK\x00\x86s"
    b"J\x08\x00\x00\x00J\x01\x00\x00\x00K\x3ftb",
    "no state": b"",
    "wrong type": b"K\x07b",
}


@pytest.mark.parametrize("state", DTYPE_STATES)
@pytest.mark.parametrize("dtype", [b"U\x02O8", b"U\x02u1", b"U\x03V16", b"U\x02M8", b"N"])
def test_what_a_dtype_claims_is_ignored(batch, dtype, state):
    pickled = python_2_batch(batch[b"data"], batch[b"labels"], dtype, DTYPE_STATES[state])
    assert_same(read_batch(pickled), batch)


def refused(pickled, reason=None):
    with pytest.raises(Exception, match=reason) as refusal:
        read_batch(pickled)
    return refusal.value


def test_arrays_of_other_shapes_and_orders_are_refused(batch):
    pixels, labels = batch[b"data"], batch[b"labels"]
    for other in (
        python_2_batch(pixels, labels, shape=(N, 384)),  # eight bytes each
        python_2_batch(pixels, labels, shape=(-N, 3072)),
        python_2_batch(pixels, labels, shape=(2**31 - 1, 3072)),
        python_2_batch(pixels[:-1], labels, shape=(N, 3072)),
        python_2_batch(pixels, labels[:-1]),
    ):
        refused(other, "labels need images of 3,072 bytes each")
    refused(python_2_batch(pixels, labels, fortran=b"\x88"), "row by row")
    refused(pickle.dumps(batch | {b"data": np.asfortranarray(pixels)}, 5), "row by row")
    strided = pickle.dumps(batch | {b"data": pixels[::-1, ::-1]}, 5)  # pickled as it is seen
    assert read_batch(strided)[0] == pixels[::-1, ::-1].tobytes()
    refused(pickle.dumps(batch | {b"data": pixels.astype(object)}))
    refused(pickle.dumps(batch | {b"data": pixels / 255}), "3,072 bytes each")
    refused(pickle.dumps(batch | {b"data": pixels.tolist()}), "not an array")


@pytest.mark.parametrize(
    "labels",
    [None, "12", {"a": 1}, [1.0] * N, ["1"] * N, [True] * N, [-1] * N, [256] * N, [2**70] * N,
     [[1]] * N, np.arange(N), tuple(range(N))],
)  # fmt: skip
def test_labels_are_a_list_of_small_whole_numbers_or_refused(batch, labels):
    refused(
        pickle.dumps(batch | {b"labels": labels}),
        "labels are not a list of whole numbers|never needs",
    )


LOOP = b"\x80\x02]q\x00h\x00a."  # a list that contains itself
DEEP = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
MEMO = b"\x80\x02]r\xff\xff\xff\xff."  # a place in the memo for which C Python takes 64 GB
CLAIM = b"\x80\x04\x8e\x00\x00\x00\x00\x01\x00\x00\x00."  # four billion bytes follow, it says
LAUGHS = b"\x80\x02}(K\x01" + b"2\x86" * 200 + b"K\x01u."  # a key that takes 2^200 steps to hash
TUPLES = b"\x80\x02K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"."
MANY = b"\x80\x02" + b"K\x01" * 400_000 + b"."
EXTENSION = b"\x80\x02\x82\x01."
PERSISTENT = b"Pid\n."
INSTANCE = b"(ios\nsystem\n."
OTHERS = {
    "loop": LOOP, "deep": DEEP, "memo": MEMO, "claim": CLAIM, "laughs": LAUGHS, "tuples": TUPLES,
    "many": MANY, "extension": EXTENSION, "persistent": PERSISTENT, "instance": INSTANCE,
    "empty": b"", "text": b"no pickle at all", "no end": b"\x80\x02]", "nothing": b"\x80\x02.",
    "no mark": b"\x80\x02u.", "unknown memo": b"\x80\x02h\x07.",
    "state of a number": b"K\x01K\x02b.",
    "encoding": pickle.dumps({b"data": Malice(__import__("_codecs").encode, "x", "rot13")}, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_crafted_pickles_are_refused_without_taking_memory(name):
    tracemalloc.start()
    try:
        refused(OTHERS[name])
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()


def test_pickle_of_more_parts_than_a_batch_has_is_not_read_to_its_end():
    refused(MANY + b"and what follows is no pickle", "too many parts")


def test_nested_keys_and_shapes_are_not_looked_into(batch):
    tuples = b"K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 200
    pickled = python_2_batch(batch[b"data"], batch[b"labels"])
    rows = b"J" + struct.pack("<i", N)
    refused(pickled.replace(rows, tuples, 1))


def test_cut_off_pickles_are_refused_wherever_they_end(batch):
    pickled = pickle.dumps(batch, 2)
    for length in [*range(0, 400, 7), *range(400, len(pickled), 9_973)]:
        refused(pickled[:length])


def test_random_changes_do_no_harm(batch):
    random = np.random.default_rng(0)
    pickled = python_2_batch(batch[b"data"][:2], batch[b"labels"][:2])
    head = len(pickled) - 2 * 3072
    for _ in range(500):
        changed = bytearray(pickled)
        for place in random.integers(0, head, size=3):
            changed[place] = random.integers(256)
        try:
            pixels, labels = read_batch(bytes(changed))
        except Exception as error:
            assert not isinstance(error, MemoryError | RecursionError | SystemError)
        else:
            assert len(pixels) == 3072 * len(labels)
            assert isinstance(pixels, bytes)
