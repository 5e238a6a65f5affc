"""Pictures as OpenCV reads them, for what is looked at and never restored: training, evaluation, elements of damage.

It needs no codec but OpenCV's, so that a machine that only trains can do without the others.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# What cannot be read is told by whoever asked for it. OpenCV would tell it of every read anew, and one file that it
# does not take among the photographs of a training is read thousands of times.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_picture(path: Path, flags: int) -> NDArray[np.uint8] | None:
    """What `cv2.imread` gives for the file: (h, w) or (h, w, bands), 8 bits unless `flags` keep more; BGR.

    None where OpenCV takes it for no image. Raises OSError where the file cannot be read. `cv2.imread` itself dies of
    a name that is not UTF-8.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        decoded = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:  # more pixels than it takes
        return None
    return None if decoded is None else np.asarray(decoded)
