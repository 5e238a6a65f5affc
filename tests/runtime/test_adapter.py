"""Networks with other habits, each as a small graph that shows in its output what it was given."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graphs import pass_through, value, write_graph

from inpaint_batch.cli.settings import gather, run_config
from inpaint_batch.errors import ConfigError, EngineError
from inpaint_batch.runtime.adapter import find_adapter
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.select import select_engine

EXAMPLES = Path(__file__).parents[2] / "engines" / "adapters"
ONE_PIXEL = (1, 1, 1, 1)


def tile(side: int, *, prior: float | None = None, count: int = 1) -> TileBatch:
    """Red 0.2, green 0.4, blue 0.8 everywhere but in the hole, the left half."""
    hole = np.zeros((count, 1, side, side), dtype=np.float32)
    hole[..., : side // 2] = 1
    colour = np.array([0.2, 0.4, 0.8], dtype=np.float32).reshape(1, 3, 1, 1)
    return TileBatch(
        image=(colour * (1 - hole)).astype(np.float32),
        hole=hole,
        prior=np.full((count, 3, side, side), prior or 0, dtype=np.float32),
        prior_weight=np.full((count, *ONE_PIXEL[1:]), float(prior is not None), dtype=np.float32),
    )


def beside(model: Path, text: str) -> Path:
    model.with_suffix(".toml").write_text(text)
    return model


def colour_in_the_hole(model: Path, side: int) -> list[float]:
    """RGB that the engine fills in; checks that the known half is untouched."""
    batch = tile(side)
    filled = select_engine(model=str(model), threads=1).fill(batch)
    np.testing.assert_array_equal(filled[..., side // 2 :], batch.image[..., side // 2 :])
    inside = filled[0, :, :, : side // 2]
    assert np.ptp(inside, axis=(1, 2)).max() == 0
    return [round(float(each), 3) for each in inside[:, 0, 0]]


def lama_like(path: Path) -> Path:
    """Fills with 255 x (mean of image over the tile + 0.1 x mask): shows image range and mask polarity."""
    sides = (1, 512, 512)
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mask", "tenth"], ["marked"]),
        helper.make_node("Add", ["mean", "marked"], ["guess"]),
        helper.make_node("Mul", ["guess", "white"], ["output"]),
    ]
    constants = {
        "axes": np.array([2, 3]),
        "tenth": np.array(0.1, dtype=np.float32),
        "white": np.array(255, dtype=np.float32),
    }
    given = [value("image", 3, sides=sides), value("mask", 1, sides=sides)]
    return write_graph(path, nodes, constants, graph_inputs=given, output=value("output", 3, sides=sides))


def test_two_float_inputs_and_an_output_of_255(tmp_path: Path) -> None:
    model = lama_like(tmp_path / "lama.onnx")
    shutil.copy(EXAMPLES / "lama.toml", tmp_path)
    # Half of the tile is hole and shows zero, so the means are half the colours; the mask is 1 there: + 0.1.
    assert colour_in_the_hole(model, 512) == [0.2, 0.3, 0.5]


def test_one_input_of_four_channels_around_zero(tmp_path: Path) -> None:
    given = [value("input", 4, sides=("batch", 256, 256))]
    nodes = [
        # known - 0.5 is -0.5 in the hole; RGB is 0 there. The output is RGB + that: -0.5 in -1..1, 0.25 in 0..1.
        helper.make_node("Slice", ["input", "zero", "first", "channels"], ["known"]),
        helper.make_node("Slice", ["input", "first", "end", "channels"], ["rgb"]),
        helper.make_node("Add", ["rgb", "known"], ["output"]),
    ]
    constants = {"zero": np.array([0]), "first": np.array([1]), "end": np.array([4]), "channels": np.array([1])}
    model = write_graph(tmp_path / "migan.onnx", nodes, constants, graph_inputs=given, output=value("output", 3))
    shutil.copy(EXAMPLES / "migan-generator.toml", tmp_path / "migan.toml")
    assert colour_in_the_hole(model, 256) == [0.25, 0.25, 0.25]


def test_bytes_in_and_out_with_the_mask_white_where_known(tmp_path: Path) -> None:
    kind, sides = TensorProto.UINT8, (1, 512, 512)
    given = [value("image", 3, kind, sides), value("mask", 1, kind, sides)]
    nodes = [
        # The mask is 255 where known: the image there, 51 / 255 = 0.2 in the hole.
        helper.make_node("Cast", ["mask"], ["known"], to=TensorProto.BOOL),
        helper.make_node("Where", ["known", "image", "dark"], ["result"]),
    ]
    dark = {"dark": np.array(51, dtype=np.uint8)}
    output = value("result", 3, kind, sides)
    model = write_graph(tmp_path / "pipe.onnx", nodes, dark, graph_inputs=given, output=output)
    shutil.copy(EXAMPLES / "migan-pipeline.toml", tmp_path / "pipe.toml")
    assert colour_in_the_hole(model, 512) == [0.2, 0.2, 0.2]


BGR_LAST = """
sides_px = [64, 128]
[[inputs]]
name = "photo"
layout = "nhwc"
parts = [{ of = "image", order = "bgr", in_hole = 0.5 }]
[output]
name = "photo_out"
layout = "nhwc"
order = "bgr"
"""


def channels_last(path: Path) -> Path:
    """Sums over rows and columns, then keeps blue alone: with BGR in and out, only the blue of RGB is left."""
    photo = helper.make_tensor_value_info("photo", TensorProto.FLOAT, [1, None, None, 3])
    out = helper.make_tensor_value_info("photo_out", TensorProto.FLOAT, [1, None, None, 3])
    nodes = [
        helper.make_node("ReduceMax", ["photo", "axes"], ["brightest"], keepdims=1),
        helper.make_node("Mul", ["brightest", "blue"], ["kept"]),
        helper.make_node("Mul", ["photo", "nothing"], ["flat"]),
        helper.make_node("Add", ["flat", "kept"], ["photo_out"]),
    ]
    constants = {
        "axes": np.array([1, 2]),
        "blue": np.array([1, 0, 0], dtype=np.float32),
        "nothing": np.array(0, dtype=np.float32),
    }
    return write_graph(path, nodes, constants, graph_inputs=[photo], output=out)


@pytest.mark.parametrize("side", [64, 128])
def test_channels_last_and_blue_first(tmp_path: Path, side: int) -> None:
    model = beside(channels_last(tmp_path / "last.onnx"), BGR_LAST)
    assert colour_in_the_hole(model, side) == [0.0, 0.0, 0.8]


def test_a_prior_is_the_fill(tmp_path: Path) -> None:
    model = beside(channels_last(tmp_path / "last.onnx"), BGR_LAST)
    engine = select_engine(model=str(model), threads=1)
    filled = engine.fill(tile(64, prior=0.7))
    assert np.unique(filled[..., :32]) == np.float32(0.7)
    np.testing.assert_array_equal(filled[..., 32:], tile(64).image[..., 32:])


def test_a_batch_is_the_same_as_its_tiles(tmp_path: Path) -> None:
    model = beside(channels_last(tmp_path / "last.onnx"), BGR_LAST)
    engine = select_engine(model=str(model), threads=2)
    np.testing.assert_array_equal(engine.fill(tile(64, count=3)), np.repeat(engine.fill(tile(64)), 3, axis=0))


def test_the_identity_follows_the_adapter(tmp_path: Path) -> None:
    model = beside(channels_last(tmp_path / "last.onnx"), BGR_LAST)
    before = select_engine(model=str(model), threads=1).identity
    beside(model, BGR_LAST.replace("0.5", "0.25"))
    assert select_engine(model=str(model), threads=1).identity != before


def test_the_run_takes_the_tiles_that_the_network_wants(tmp_path: Path) -> None:
    text = (EXAMPLES / "lama.toml").read_text()
    model = beside(lama_like(tmp_path / "lama.onnx"), text)
    wanted = {"tiling.buckets_px": (512,), "tiling.margin_px": 96, "tiling.bridge_depth_px": 128.0}
    wanted["tiling.second_start_px"] = 0.0  # such a network cannot go on from a prior
    assert gather({"model": str(model)}, None, {}).values == {"model": str(model), **wanted}
    model.with_suffix(".toml").write_text(text.replace("margin_px = 96", "margin_px = 300"))
    with pytest.raises(ConfigError, match=r"margin_px in .*lama\.toml must lie in 0\.\.255, not 300"):
        run_config(gather({"model": str(model)}, None, {}), output=tmp_path)
    model.with_suffix(".toml").write_text("\ufeff" + text)  # a byte order mark
    settings = tmp_path / "settings.toml"
    settings.write_text("[tiling]\nmargin_px = 32\n")
    assert gather({"model": str(model)}, settings, {}).values["tiling.margin_px"] == 32


def test_what_lies_beside_weights_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("steps = 20000\n")  # the recipe that they were trained by
    weights = str(tmp_path / "mine.safetensors")
    assert gather({"model": weights}, None, {}).values == {"model": weights}


@pytest.mark.parametrize("engine", ["onnxruntime-cuda", "tensorrt"])
def test_on_a_gpu_it_is_refused_as_what_it_is(tmp_path: Path, engine: str) -> None:
    model = beside(channels_last(tmp_path / "last.onnx"), BGR_LAST)
    with pytest.raises(EngineError, match=r"last\.onnx says how it is asked.* CPU only: use --engine onnxruntime$"):
        select_engine(engine, model=str(model))


def test_without_an_adapter_the_error_says_where_it_goes(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"input `hole` is missing.*last\.toml beside it"):
        select_engine(model=str(channels_last(tmp_path / "last.onnx")))


def test_a_model_of_this_package_needs_none(tmp_path: Path) -> None:
    pass_through(tmp_path / "own.onnx")
    assert find_adapter(tmp_path / "own.onnx") is None
    assert "adapter" not in select_engine(model=str(tmp_path / "own.onnx"), threads=1).identity


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'name = "photo"',
            'name = "picture"',
            "its input `photo` is not described.*it has no input `picture`.*Correct",
        ),
        ('name = "photo_out"', 'name = "out"', "no output `out`, only photo_out"),
        ('layout = "nhwc"\nparts', 'layout = "nchw"\nparts', "`photo` has the fixed size|`photo` has .* channels"),
        ('of = "image"', 'of = "hole"', "has 3 channels, the adapter describes 1"),
        ('layout = "nhwc"\nparts', 'layout = "nhwc"\ntype = "uint8"\nparts', r"is tensor\(float\), not uint8"),
    ],
)
def test_an_adapter_that_does_not_fit_the_graph_is_told_apart(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in BGR_LAST
    model = beside(channels_last(tmp_path / "last.onnx"), BGR_LAST.replace(old, new))
    with pytest.raises(EngineError, match=message):
        select_engine(model=str(model))


def test_a_graph_of_one_size_takes_no_other(tmp_path: Path) -> None:
    text = (EXAMPLES / "lama.toml").read_text().replace("[512]", "[256, 512]")
    with pytest.raises(EngineError, match=r"fixed size \[512\] px, so sides_px cannot hold \[256\]"):
        select_engine(model=str(beside(lama_like(tmp_path / "lama.onnx"), text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sides_px = [", "cannot be used"),
        ("", "the file lacks 'sides_px'"),
        (BGR_LAST.replace("sides_px", "side_px"), "unknown key 'side_px'; did you mean sides_px"),
        (BGR_LAST.replace("[64, 128]", "[60]"), "multiples of 32, not"),
        (BGR_LAST.replace("[64, 128]", "[]"), r"multiples of 32, not \[\]"),
        (BGR_LAST.replace("[64, 128]", '["64"]'), r"sides_px\[0\] must be a whole number, not '64'"),
        (BGR_LAST.replace('"image"', '"photo"'), r"inputs\[0\]\.parts\[0\]\.of must be image or hole or known"),
        (BGR_LAST.replace("0.5", "2.0"), "in_hole must lie in 0..1, not 2.0"),
        (BGR_LAST + "range = [1, 1]", "range of the output photo_out is empty"),
        (BGR_LAST + "range = [1]", r"output\.range must be a list of 2"),
        (BGR_LAST + "[tiling]\nmargin = 3", "tiling has an unknown key 'margin'; did you mean margin_px"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    model = beside(tmp_path / "any.onnx", text)
    with pytest.raises(EngineError, match=message):
        find_adapter(model)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_can_be_read(tmp_path: Path, example: Path) -> None:
    shutil.copy(example, tmp_path / "model.toml")
    adapter = find_adapter(tmp_path / "model.onnx")
    assert adapter is not None
    assert list(adapter.sides_px) == tomllib.loads(example.read_text())["sides_px"]


def test_nan_in_known_places_does_no_harm(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Div", ["hole", "hole"], ["one_or_nan"]),
        helper.make_node("Concat", ["one_or_nan"] * 3, ["out"], axis=1),
    ]
    model = write_graph(tmp_path / "nan.onnx", nodes, {}, graph_inputs=[value("hole", 1)], output=value("out", 3))
    onnx.checker.check_model(onnx.load(model))
    text = 'sides_px = [64]\n[[inputs]]\nname = "hole"\nparts = [{ of = "hole" }]\n[output]\nname = "out"\n'
    assert colour_in_the_hole(beside(model, text), 64) == [1.0, 1.0, 1.0]
