"""Certificates for both sides."""

from __future__ import annotations

from ..interop.conftest import certificates

__all__ = ["certificates"]
