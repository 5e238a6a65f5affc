import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from onnx import helper
from small_graphs import pass_through, write_graph

import inpaint_batch
from inpaint_batch.cli import options
from inpaint_batch.cli.settings import gather
from inpaint_batch.errors import EngineError, UsageError
from inpaint_batch.runtime import processor, select, store
from inpaint_batch.runtime.plans import plan_folder
from inpaint_batch.runtime.select import select_engine


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder without any model yet; returns where an installed wheel keeps them. The processor has VNNI."""
    monkeypatch.setattr(select, "adds_bytes_exactly", lambda: True)
    package = tmp_path / "site-packages" / "inpaint_batch"
    (package / "engines" / "default").mkdir(parents=True)
    monkeypatch.setattr(inpaint_batch, "__file__", str(package / "__init__.py"))
    return package / "engines" / "default"


def test_every_engine_is_named_in_the_help() -> None:
    (option,) = get_args(options.Engine)[1:]
    assert set(select.ENGINES) <= set(re.findall(r"[\w-]+", option.help))


def test_a_home_that_nobody_knows_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"there is no model ~no such user/my\.onnx"):
        select_engine(model="~no such user/my.onnx")
    with pytest.raises(EngineError, match="there are no weights ~no such user"):
        select_engine("torch", model="~no such user/my.safetensors")
    monkeypatch.setenv("INPAINT_BATCH_ENGINES", "~no such user/plans")
    with pytest.raises(EngineError, match="set INPAINT_BATCH_ENGINES to a folder"):
        plan_folder()
    assert gather({"model": "~no such user/my.onnx"}, None, {}).values == {"model": "~no such user/my.onnx"}


def test_int8_is_preferred(installed: Path) -> None:
    for precision in ("int8", "fp32"):
        pass_through(installed / f"dcf-base.{precision}.onnx")
    engine = select_engine(threads=1)
    assert (engine.name, engine.precision, engine.model, engine.notes) == ("onnxruntime", "int8", "default", ())
    assert select_engine(precision="fp32", threads=1).precision == "fp32"


def test_without_vnni_fp32_is_faster_and_int8_exact(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("int8", "fp32"):
        pass_through(installed / f"dcf-base.{precision}.onnx")
    monkeypatch.setattr(select, "adds_bytes_exactly", processor.adds_bytes_exactly)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    processor.adds_bytes_exactly.cache_clear()
    try:
        (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n")
        engine = select_engine(threads=1)
        assert engine.precision == "fp32"
        assert engine.notes == ("this processor has no VNNI, without which INT8 is slower than FP32; fp32 is used",)
        assert select_engine(precision="int8", threads=1).precision == "int8"
        for exact in ("flags\t\t: fpu avx2 avx_vnni\n", "flags\t\t: avx512_vnni\n", "nothing said\n"):
            processor.adds_bytes_exactly.cache_clear()
            (tmp_path / "cpuinfo").write_text(exact)
            assert select_engine(threads=1).precision == "int8"
        processor.adds_bytes_exactly.cache_clear()
        (tmp_path / "cpuinfo").unlink()
        assert processor.adds_bytes_exactly()
    finally:
        processor.adds_bytes_exactly.cache_clear()


def test_without_int8_fp32_is_used_and_said(installed: Path) -> None:
    pass_through(installed / "dcf-base.fp32.onnx")
    engine = select_engine(threads=1)
    assert engine.precision == "fp32"
    assert engine.notes == ("the default model has no int8 file; fp32 is used, which is slower",)
    with pytest.raises(EngineError, match="has no int8 file"):
        select_engine(precision="int8")


def test_a_checkout_is_found_where_the_package_has_none(installed: Path) -> None:
    checkout = installed.parents[2] / "engines" / "default"
    checkout.mkdir(parents=True)
    pass_through(checkout / "dcf-base.fp32.onnx")
    assert store.default_folder() == checkout
    pass_through(installed / "dcf-base.fp32.onnx")
    assert store.default_folder() == installed


def test_no_model_at_all_says_what_to_do(installed: Path) -> None:
    with pytest.raises(EngineError, match=r"the default model is not there .* --model"):
        select_engine()


def test_the_card_is_read(installed: Path) -> None:
    pass_through(installed / "dcf-base.fp32.onnx")
    (installed / "card.toml").write_text('name = "dcf-base"\n')
    assert store.find_model("default").card == {"name": "dcf-base"}
    (installed / "card.toml").write_text("name = ")
    with pytest.raises(EngineError, match="model card"):
        store.find_model("default")


@pytest.mark.parametrize(
    ("name", "precision"), [("mine.onnx", "fp32"), ("mine.int8.onnx", "int8"), ("int8.onnx", "int8")]
)
def test_a_model_of_ones_own(tmp_path: Path, name: str, precision: str) -> None:
    path = pass_through(tmp_path / name)
    engine = select_engine(model=str(path), threads=1)
    assert (engine.precision, engine.model, engine.notes) == (precision, str(path), ())


def test_a_model_of_ones_own_that_would_fail_every_image_is_refused_at_once(tmp_path: Path) -> None:
    path = pass_through(tmp_path / "mine.onnx", divisor=0.0)
    with pytest.raises(EngineError, match=r"mine\.onnx returns NaN or infinity for a plain grey tile of 64 px"):
        select_engine(model=str(path), threads=1)
    shrinks = helper.make_node("MaxPool", ["image"], ["filled"], kernel_shape=[2, 2], strides=[2, 2])
    path = write_graph(tmp_path / "half.onnx", [shrinks], {})
    with pytest.raises(
        EngineError, match=r"half\.onnx does not work \(the engine returned \(1, 3, 32, 32\) for a tile"
    ):
        select_engine(model=str(path), threads=1)


def test_a_model_that_is_not_there_or_not_onnx(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no model"):
        select_engine(model=str(tmp_path / "no.onnx"))
    with pytest.raises(EngineError, match=r"path of an \.onnx file"):
        select_engine(model="large")


def test_engines_for_rehearsals_need_no_model(installed: Path) -> None:
    assert select_engine("identity").name == "identity"
    assert select_engine("faulty:.x").name == "faulty:.x"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown engine 'gpu'"):
        select_engine("gpu")
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        select_engine(precision="fp8")


def test_choosing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from inpaint_batch.runtime import select; select.select_engine('identity');"
        "print({'torch', 'onnx', 'onnxruntime', 'ray', 'cv2', 'pyvips'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "set()\n"
