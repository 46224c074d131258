"""The networks."""

from machinery import environment, errors  # noqa: F401
