"""The version."""

from __future__ import annotations

import importlib.metadata

import wsclient
from wsclient._version import __version__


def test_the_version_is_the_distributions():
    assert importlib.metadata.version("wsclient-trio") == __version__ == wsclient.__version__
