"""How the scripts report errors, and how they end."""

import contextlib
import errno
import os
import shlex
import signal
import sys
import tempfile
import traceback
import unicodedata
from pathlib import Path

from machinery.environment import ROOT, is_our_script

THIS_FILE = Path(__file__).resolve()

# https://www.unicode.org/reports/tr9/#Explicit_Directional_Embeddings, and the next two sections
EMBEDDINGS = "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"


class UsageError(Exception):
    """The user asked for what can't be done; the message says why and what to do instead.

    Args:
        message: one line. more: lines that follow it.
    """

    def __init__(self, message, *more):
        super().__init__("\n".join(printable(str(line)) for line in (message, *more)))


class DamagedError(UsageError):
    """A file is not what it should be: whoever can do without it may move it away and go on."""


def is_out_of_memory(error):
    """Tell whether an error is Python's, or TensorFlow's, when there is too little memory."""
    return type(error).__name__ in ("MemoryError", "ResourceExhaustedError")


@contextlib.contextmanager
def readable_errors():
    """Turn what ends a script into one line and an exit code.

    2: the user's or the machine's error. 130: Ctrl-C, as a shell reports it. 141: whoever read the
    output has left, as after `| head`. 1: an error of ours, whose traceback goes into a file.
    """
    on_ctrl_c(signal.default_int_handler)
    script = Path(sys.argv[0]).name
    try:
        try:
            yield
        except SystemExit:  # argparse's, or the script's own
            sys.stdout.flush()
            on_ctrl_c(signal.SIG_DFL)
            raise
        sys.stdout.flush()
        on_ctrl_c(signal.SIG_DFL)  # all is done: while Python shuts down, it has no more to say
    except UsageError as error:
        leave(2, f"{script}: error: {error}")
    except BrokenPipeError:
        leave(141)
    except OSError as error:
        named = error.filename and printable(f"{error.filename}: {error.strerror}")
        if error.errno == errno.ENOENT and not named:  # os.getcwd's
            named = "the folder that you are in was deleted: change to another one"
        leave(2, f"{script}: error: {named or first_line(error)}")
    except KeyboardInterrupt:
        leave(130)
    except ModuleNotFoundError as error:
        leave(
            2,
            f"{script}: error: {first_line(error)}: activate the environment first, "
            f"`{shlex.join(['source', str(ROOT / '.venv/bin/activate')])}`; the README says how to "
            "make it",
        )
    except Exception as error:
        if is_out_of_memory(error):
            leave(
                2,
                f"{script}: error: too little memory: close other programs, or take fewer or "
                "smaller images, or a smaller --batch-size",
            )
        told = f"{script}: unforeseen error: {type(error).__name__}: {first_line(error)}"
        leave(1, f"{told}{place_of(error)}. {where_the_details_are()}")


def on_ctrl_c(handler):
    """Set what Ctrl-C does, unless it is ignored, as it is in a shell's background job."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def place_of(error):
    """Say in which line of the project an error came up, "" if in none: users edit their copies."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts and path != THIS_FILE:
            return f", in line {frame.lineno} of {path.relative_to(ROOT)}"
    return ""


def where_the_details_are():
    """Write the traceback of the error that is being handled to a file, and say to which one.

    Where there is no room for a file, return the traceback itself.
    """
    details = traceback.format_exc()
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{Path(sys.argv[0]).name}-", suffix=".txt", delete=False,
            errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write(details)
    except OSError:
        return f"Please report the details:\n{details}"
    return f"The details are in {file.name}: please report them, unless you have edited that line"


def first_line(error):
    """Return the first line of an error's message, at most 200 characters of it."""
    return printable(str(error).partition("\n")[0][:200])


def printable(text):
    """Return a text with its control characters written out, as in `\\x1b`.

    Whoever made a file may have chosen them to confuse the terminal of others, or, by reversing
    the direction of writing, its readers. Spaces and joiners of any script stay.
    """
    return "".join(ascii(each)[1:-1] if is_control(each) else each for each in text)


def is_control(character):
    kind, direction = unicodedata.category(character), unicodedata.bidirectional(character)
    return kind in ("Cc", "Cs") or direction in EMBEDDINGS


def tell_in_one_line(kind, error, trace):
    """Tell an error that comes before `readable_errors`, while packages are imported, as it does.

    A `sys.excepthook`. For a line that the README has for the terminal, errors of use are told so,
    and any other as Python does.
    """
    if is_our_script():
        with readable_errors():
            raise error
    elif issubclass(kind, UsageError):
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.__excepthook__(kind, error, trace)


if is_our_script() or sys.argv[0] == "-c":
    sys.excepthook = tell_in_one_line


def leave(code, message=None):
    """End the process with an exit code; nothing is left to be said on stdout."""
    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    if message:
        print(message, file=sys.stderr)
    # What remains in the buffer would be written once more at the end, into a pipe that may be
    # closed. https://docs.python.org/3/library/signal.html#note-on-sigpipe
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
