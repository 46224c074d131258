"""How the scripts report errors."""

import contextlib
import sys
from pathlib import Path


class UsageError(Exception):
    """The user asked for what can't be done; the message says why and what to do instead."""


@contextlib.contextmanager
def readable_errors():
    """Turn errors of the user's or the machine's into one line and the exit code 2."""
    try:
        yield
    except (UsageError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports a program that Ctrl-C ended
