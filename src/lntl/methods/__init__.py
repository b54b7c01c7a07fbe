"""Training methods, one per file: each yields the objectives of its algorithm; the trainer minimises them."""

from lntl import plugins
from lntl.methods.base import Method


def load_method(name: str) -> type[Method]:
    """Return a method's class by its name, or by the dotted name of a user's class."""
    return plugins.load("lntl.methods", name, Method)
