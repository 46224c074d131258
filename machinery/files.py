"""Files: read without trusting them, written all or nothing."""

import contextlib
import errno
import math
import os
import re
import resource
import stat
import struct
import zipfile
from pathlib import Path

from machinery.errors import DamagedError, UsageError, first_line, is_out_of_memory

import numpy as np

MOST_JSON_BYTES = 10_000_000  # which takes ten times the memory and more
# What a zip archive says of its members at most: ours have a hundred, at 60 bytes or so each.
MOST_LISTING_BYTES = 1_000_000

MOST_MEMORY = 3_000_000_000  # that reading a file may take: a model answers for one image, too


@contextlib.contextmanager
def reading(path, most_bytes, most_memory=MOST_MEMORY):
    """Yield a file open for reading; see `blame` for what goes wrong in the block.

    Args:
        path: a regular file.
        most_bytes: how long such a file can be.
        most_memory: how many bytes of memory the block may take.

    Raises:
        UsageError: with the path and the reason.
    """
    with blame(path, most_memory), limited_memory(most_memory):
        require_regular(path)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > most_bytes:
                raise ValueError(f"longer than the {most_bytes:,} bytes that are allowed")
            yield file


@contextlib.contextmanager
def limited_memory(most_bytes=MOST_MEMORY):
    """Let the block take so much more memory at most, whatever a file asks for.

    Sizes are checked before something is read. This is for what nobody has thought of: a file can
    name one text thousands of times, or any class of Keras with any arguments.

    Raises:
        MemoryError: or what a library makes of it. (No limit holds outside of Linux.)
    """
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        taken = math.inf
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = {taken + most_bytes, soft, hard} - {math.inf, resource.RLIM_INFINITY}
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits, default=soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def require_regular(path):
    """Refuse a folder, a device, a pipe or a socket: opening one could keep us waiting for ever.

    Raises:
        DamagedError: if it is one of them.
        OSError: if there is nothing.
    """
    kind = os.stat(path).st_mode
    if stat.S_ISDIR(kind):
        raise DamagedError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(kind):
        raise DamagedError(f"{path} is not a regular file")


@contextlib.contextmanager
def blame(path, most_memory=MOST_MEMORY):
    """Say of whatever goes wrong in the block what it is, in one message with a path.

    A library can raise nearly anything at a damaged or hostile file: all of that is the file's
    fault. That it could not be read at all says nothing about its content, so the message then is
    the operating system's.

    Args:
        path: of the file. most_memory: how many bytes the block may take, see `limited_memory`.

    Raises:
        DamagedError: with the path and the reason, if it is the file's fault, or there is none.
        UsageError: with the path and the reason, if not. One that is raised in the block is passed
            on.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            or_limit = f", or it takes more than {most_memory / 1e9:.0f} GB"
            raise UsageError(
                f"{path}: there is too little memory to read it"
                f"{or_limit if most_memory < math.inf else ''}"
            ) from error
        # Libraries raise OSError for what they find in a file, too, but without a number.
        number = getattr(error, "errno", None)
        if number in (errno.ENOENT, errno.ELOOP):
            raise DamagedError(f"there is no file {path}") from error
        if number == errno.EAGAIN:
            raise UsageError(f"{path} is in use by another program") from error
        if isinstance(error, OSError) and number not in (None, errno.EINVAL):
            raise UsageError(f"{path}: {os.strerror(number)}") from error
        reason = first_line(error) or type(error).__name__
        raise DamagedError(f"{path}: damaged or foreign ({reason})") from error


def read_array(file):
    """Return the array of an open `.npy` file, which ends where the array does.

    Not with `numpy.load`, which takes as much memory as the array claims before it reads it.

    Raises:
        ValueError: if it is not an array of numbers, or is longer or shorter than it says.
    """
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array in another version of NumPy's format than 1.0")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if min(shape, default=0) < 0:
        raise ValueError("an array of a negative size")
    if dtype.kind not in "biufc":
        raise ValueError("an array of something else than numbers")
    return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if is_fortran else "C")


def open_zip(file, most_listing_bytes=MOST_LISTING_BYTES):
    """Return the `zipfile.ZipFile` of an open file, to read from.

    `zipfile` reads what the archive says of its members, all of it, into ten times the memory. So
    the records at the end, which tell how long that is, are looked at first: 22 bytes, and before
    them, where there are more than 65,535 members or 4 GB, 56 and 20 of what is called zip64.
    https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.14 to 4.3.16

    Nor does it limit what bzip2 and LZMA unpack to, as it does for deflate: a kilobyte can take any
    memory, whatever size the archive says that the member has.

    Raises:
        ValueError: if the list is longer than `most_listing_bytes`, or the archive has a comment,
            or something else after its list of members, or one that is packed in another way.
    """
    start = max(0, file.seek(0, os.SEEK_END) - 98)
    file.seek(start)
    last = file.read()
    record, locator, end = last[:-42].rjust(56), last[-42:-22], last[-22:]
    signature, listing_bytes = struct.unpack("<4s8xI6x", end)
    if signature != b"PK\5\6":  # a comment would follow it
        raise ValueError("no zip archive, one with a comment, or cut off")
    if locator.startswith(b"PK\6\7"):
        signature, listing_bytes = struct.unpack("<4s36xQ8x", record)
        if signature != b"PK\6\6" or struct.unpack("<8xQ4x", locator) != (start,):
            raise ValueError("a zip archive with something else after its list of members")
    if listing_bytes > most_listing_bytes:
        raise ValueError("a zip archive of too many members")
    archive = zipfile.ZipFile(file)
    for member in archive.infolist():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} is not packed with deflate: pack the zip anew")
    return archive


def require_member_sizes(archive, most_bytes):
    """Raise ValueError if an open zip archive unpacks to more bytes, or has a huge JSON member."""
    members = archive.infolist()
    if sum(member.file_size for member in members) > most_bytes:
        raise ValueError(f"it unpacks to more than {most_bytes:,} bytes")
    for member in members:
        if member.filename.endswith(".json") and member.file_size > MOST_JSON_BYTES:
            raise ValueError(f"{member.filename} is longer than {MOST_JSON_BYTES:,} bytes")


def read_member(archive, name, most_bytes):
    """Return the bytes of a member of an open zip archive.

    Raises:
        ValueError: if it is missing, or longer than it may be.
    """
    if name not in archive.namelist():
        raise ValueError(f"{name} is missing")
    if archive.getinfo(name).file_size > most_bytes:
        raise ValueError(f"{name} is longer than {most_bytes:,} bytes")
    return archive.read(name)


@contextlib.contextmanager
def replace_when_complete(path):
    """Yield a temporary path beside `path`; move it there if the block ends without an error.

    Whoever is killed in between, or loses its power, leaves the earlier file as it was, and a
    temporary one, which is removed when the file is written the next time.

    Raises:
        UsageError: with the path, if it can't be written: the disk is full, for example.
    """
    path = Path(path)
    with contextlib.suppress(OSError):  # others' left-overs are no reason not to write
        remove_partial_files(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        synchronize(temporary)
        os.replace(temporary, path)
        synchronize(path.parent)
    except (OSError, RuntimeError) as error:  # HDF5's, when a full disk keeps it from closing
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else first_line(error)
        raise UsageError(f"{path} can't be written: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def synchronize(path):
    """Wait until a file, or the list of files in a folder, is on the disk: power may fail."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(path):
    """Remove what processes that are dead now were just writing in place of `path`."""
    partial = re.compile(rf"\.{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    for other in path.parent.iterdir():
        if (found := partial.fullmatch(other.name)) and not is_alive(int(found[1])):
            other.unlink(missing_ok=True)


def is_alive(process):
    """Tell whether there is another process of this number."""
    try:
        os.kill(process, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return process != os.getpid()


def archive(paths, when, folder):
    """Move files that are in the way to a folder of earlier ones, with a date; say which ones.

    Args:
        paths: files that exist.
        when: an ISO 8601 time, for their names.
        folder: where to; it is made.

    Raises:
        UsageError: if one can't be moved there.
    """
    for path in paths:
        try:
            path.replace(dated(path, when, folder))
        except OSError as error:
            raise UsageError(f"can't move {path} to {folder}: {error.strerror}") from error
    print(f"Moved to {folder}: {', '.join(path.name for path in paths)}", flush=True)


def dated(path, when, folder):
    """Return a path in a folder, which is made, that has a file's name and a date, and is free."""
    folder.mkdir(exist_ok=True)
    stem = f"{path.stem}-{re.sub(r'[^0-9T.+-]', '', when)}"
    target, number = folder / f"{stem}{path.suffix}", 1
    while target.exists():
        number += 1
        target = folder / f"{stem}-{number}{path.suffix}"
    return target
