"""Where images come from, and how they become batches."""

from machinery import environment, errors  # noqa: F401
