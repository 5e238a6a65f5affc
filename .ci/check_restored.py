#!/usr/bin/env python3
"""Check that every row of a manifest has its restored file, and that two runs of it agree byte for byte.

Usage: check_restored.py MANIFEST OUTPUT [OTHER_OUTPUT]. Standard library only: it runs beside the plain installation.
"""

import csv
import sys
from pathlib import Path


def main() -> str | None:
    """The complaint, or None where all is well."""
    manifest, *folders = (Path(argument) for argument in sys.argv[1:])
    with manifest.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        source = (manifest.parent / row["image"]).read_bytes()
        restored = [(folder / (row.get("output") or row["image"])).read_bytes() for folder in folders]
        if source in restored:
            return f"{row['image']} came out as it went in"
        if len(set(restored)) > 1:
            return f"{row['image']} differs between {' and '.join(map(str, folders))}"
    print(f"{len(rows)} restored files are there")
    return None if rows else f"{manifest} has no rows"


if __name__ == "__main__":
    sys.exit(main())
