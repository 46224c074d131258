"""One owner: nobody else may have a run, or a file, while a process works on it."""

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from machinery.errors import UsageError


@contextlib.contextmanager
def only_owner(path, what, wait=False):
    """Hold an operating-system lock until the block ends, or the process does, however it ends.

    Args:
        path: the lock's file; it holds the owner's process number, and is removed in the end.
        what: what is locked, for the message to a second process.
        wait: whether a second process waits for the first one, or is refused.

    Raises:
        UsageError: if another process holds the lock, there is something else in its place, or the
            disk is full.
    """
    path = Path(path)
    while True:
        with contextlib.suppress(FileNotFoundError):  # a link is none, wherever it leads
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise UsageError(f"{path} should be a lock, but is no regular file: move it away")
        file = open(path, "a+", errors="replace")  # noqa: SIM115 - closed, and thereby released, below
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "that is just starting"
            if not wait:
                file.close()
                raise UsageError(
                    f"{what} belongs to process {owner}: wait for it, or stop it"
                ) from None
            print(f"Waiting for process {owner}, which has {what}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        # The owner before may have removed the file after we opened it: then nobody sees our lock.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()
    file.seek(0)
    if (left := file.read(100).strip()) and not left.isdecimal():
        file.close()
        raise UsageError(f"{path} is no lock, but somebody's file: move it away")
    try:
        try:
            file.truncate(0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}") from error
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def owner_of(path):
    """Return the number of the process that holds a lock, None if none does.

    0 if it has not said its number yet.
    """
    if not Path(path).is_file():  # nor is a pipe a lock, which could keep us waiting
        return None
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            told = file.read().strip()
            return int(told) if told.isdecimal() else 0
    return None
