"""Learned covariances by name."""

from .registry import build_network

__all__ = ["build_network"]
