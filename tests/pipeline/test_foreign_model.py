"""A network from elsewhere, through the whole command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from gallery import Gallery, noise
from onnx import TensorProto, helper, save
from PIL import Image

ADAPTER = """
sides_px = [64, 128]
[[inputs]]
name = "mask"
type = "uint8"
parts = [{ of = "hole", range = [0.0, 255.0] }]
[output]
name = "filled"
range = [0.0, 255.0]
[tiling]
margin_px = 16
bridge_depth_px = 20.0
"""


def white_holes(path: Path) -> Path:
    """Bytes in, bytes out: three times the mask."""

    def tensor(name: str, channels: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", channels, "height", "width"])

    nodes = [helper.make_node("Concat", ["mask"] * 3, ["filled"], axis=1)]
    graph = helper.make_graph(nodes, "white", [tensor("mask", 1)], [tensor("filled", 3)])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_it_fills_shallow_and_deep_holes_and_nothing_else(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "in")
    source = noise(0, 300, "RGB")
    hole = np.zeros((300, 300), dtype=bool)
    hole[20:30, 20:200] = True
    hole[100:220, 100:220] = True  # 60 px deep: filled at a quarter of the size, then enlarged
    mask = gallery.mask("mask.png", hole.astype(np.uint8) * 255)
    Image.fromarray(source).save(gallery.add_row("a.png", mask))
    model = white_holes(tmp_path / "white.onnx")
    (tmp_path / "white.toml").write_text(ADAPTER)
    command = [sys.executable, "-m", "inpaint_batch", "run", str(gallery.manifest())]
    command += ["--output", str(tmp_path / "out"), "--model", str(model), "--log-format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "a.png") as image:
        restored = np.asarray(image)
    np.testing.assert_array_equal(restored[~hole], source[~hole])
    assert (restored[20:30, 20:200] == 255).all()
    assert (restored[112:208, 112:208] == 255).all()  # nearer to the rim the enlarged fill takes in what is known
    summary = json.loads((tmp_path / "out" / ".inpaint-batch" / "summary.json").read_text())
    assert summary["model"] == str(model)
    assert set(summary["tiles_by_side_px"]) <= {"64", "128"}
