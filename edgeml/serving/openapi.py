from __future__ import annotations
def document(model, settings): return {}
def page(model): return b"", "default-src 'none'"
