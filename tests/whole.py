"""Tests whose subject others touch in less time: `make test-whole` runs them, `make test` says that it does not."""

from __future__ import annotations

import os

import pytest


def whole(why: str) -> pytest.MarkDecorator:
    """Leave a test to `make test-whole`, for what it costs."""
    return pytest.mark.skipif("EDGEML_TEST_WHOLE" not in os.environ, reason=f"{why}; make test-whole does it")
