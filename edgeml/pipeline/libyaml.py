"""PyYAML, imported for libyaml's parser.

Importing PyYAML compiles one pattern, the characters that its Python reader refuses, which takes longer than all else
of `edgeml run` up to its first step. libyaml refuses them itself, so that the pattern is compiled when somebody
reads with the Python reader, and not before.
"""

from __future__ import annotations

import re
import sys
from typing import Any

_REFUSED = "[^\x09\x0a\x0d\x20-\x7e"  # how the pattern begins


class _OnFirstUse:
    """A pattern that is compiled when it is first asked for something."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __getattr__(self, name: str) -> Any:
        return getattr(re.compile(self._pattern), name)


def _import() -> Any:
    compile_now = re.compile

    def compile_or_wait(pattern: Any, flags: Any = 0) -> Any:
        later = not flags and isinstance(pattern, str) and pattern.startswith(_REFUSED)
        return _OnFirstUse(pattern) if later else compile_now(pattern, flags)

    re.compile = compile_or_wait
    try:
        import yaml
    finally:
        re.compile = compile_now
    return yaml


if "yaml" not in sys.modules:
    _import()

import yaml  # noqa: E402

__all__ = ["Loader", "yaml"]

# About ten times faster than the Python loader; PyYAML wheels have it, some distributions' builds do not.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
