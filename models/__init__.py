"""The networks."""

from machinery import environment  # noqa: F401
