"""Restore images by the hundred thousand: every hole filled, not one other sample changed."""

import os

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime tells its maker of every process and model, and keeps an identifier in the home folder. It
# asks for this variable once, when it is first imported; worker processes have it from here as well.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
