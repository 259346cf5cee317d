"""The SCP's side: the registry of handlers, and the performers that run them (PS3.7 chapter 9 and 10)."""

from __future__ import annotations

from .registry import Environment, Services

__all__ = ["Environment", "Services"]
