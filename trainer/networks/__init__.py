"""Learned covariances by name."""

from .registry import build

__all__ = ["build"]
