"""What makes a run convenient: options, resuming, records, figures. No step of the tutorial."""

from machinery import environment  # noqa: F401
