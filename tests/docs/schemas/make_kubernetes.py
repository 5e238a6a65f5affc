"""Takes what a Job is made of out of the schemas that the package kubernetes-validate carries; see README.md.

pip download kubernetes-validate --no-deps && python make_kubernetes.py kubernetes_validate-*.whl
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

VERSION = "v1.33.0"
ROOT = "io.k8s.api.batch.v1.Job"


def bare(value: Any) -> Any:
    """Without descriptions and extensions, and with references that stay in this file."""
    if isinstance(value, list):
        return [bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, inner in value.items():
        if name == "properties":
            kept[name] = {key: bare(item) for key, item in inner.items()}
        elif name == "$ref":
            kept[name] = "#/$defs/" + inner.rpartition("/")[2]
        elif name != "description" and not name.startswith("x-"):
            kept[name] = bare(inner)
    return kept


def references(value: Any) -> set[str]:
    """Names of the definitions that a schema refers to."""
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"].rpartition("/")[2]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*map(references, value.values()))


def main(wheel: str) -> None:
    """Write the file beside this one."""
    with zipfile.ZipFile(wheel) as archive:
        name = f"kubernetes_validate/kubernetes-json-schema/{VERSION}-local-strict/_definitions.json"
        definitions = json.loads(archive.read(name))["$defs"]
    kept: dict[str, Any] = {}
    wanted = {ROOT}
    while wanted:
        for name in wanted:
            kept[name] = bare(definitions[name])
        wanted = set().union(*(references(schema) for schema in kept.values())) - set(kept)
    schema = {"$ref": f"#/$defs/{ROOT}", "$defs": dict(sorted(kept.items()))}
    lines = json.dumps(schema, indent=1, ensure_ascii=True)
    (Path(__file__).parent / f"kubernetes-job-{VERSION}.json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
