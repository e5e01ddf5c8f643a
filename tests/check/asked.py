"""Rules that speak only when they are asked, and how they are."""

from __future__ import annotations

from typing import Any

ASKED: dict[str, dict[str, Any]] = {"settings-not-ready": {"ready": ["azure"]}, "azure-ai-ml": {"with_sdk": True}}
