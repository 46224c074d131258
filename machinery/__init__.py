"""What makes a run convenient: options, resuming, records, figures. No step of the tutorial."""

from machinery import environment, errors  # noqa: F401
