"""Restore images by the hundred thousand: every hole filled, not one other sample changed."""

__version__ = "0.1.0"
