import signal
import subprocess
import sys

import numpy as np
import pytest

from inpaint_batch.errors import EngineError, FailureCode, RowError
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.testing import FaultyEngine, IdentityEngine


def tiles() -> TileBatch:
    rng = np.random.default_rng(0)
    hole = (rng.random((2, 1, 64, 64)) < 0.5).astype(np.float32)
    image, prior = (rng.random((2, 3, 64, 64), dtype=np.float32) for _ in range(2))
    return TileBatch(image * (1 - hole), hole, prior, np.array([0, 1], dtype=np.float32).reshape(2, 1, 1, 1))


def test_identity_keeps_what_is_known_and_takes_the_prior_where_there_is_one() -> None:
    batch = tiles()
    filled = IdentityEngine().fill(batch)
    assert filled.dtype == np.float32
    inside = np.broadcast_to(batch.hole == 1, filled.shape)
    np.testing.assert_array_equal(filled[~inside], batch.image[~inside])
    assert (filled[0][inside[0]] == 0).all()
    np.testing.assert_array_equal(filled[1][inside[1]], batch.prior[1][inside[1]])


def test_a_schedule_is_followed_and_begins_again() -> None:
    engine = FaultyEngine.parse("faulty:.xens@0")
    for _ in range(2):
        assert np.isfinite(engine.fill(tiles())).all()
        with pytest.raises(RowError) as failed:
            engine.fill(tiles())
        assert failed.value.code is FailureCode.INFER
        assert failed.value.retryable
        with pytest.raises(RuntimeError, match="as it was told to"):
            engine.fill(tiles())
        with pytest.raises(RowError) as broken:
            engine.fill(tiles())
        assert broken.value.code is FailureCode.NONFINITE
        assert np.isfinite(engine.fill(tiles())).all()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_it_can_kill_its_process() -> None:
    code = (
        "import numpy as np; from inpaint_batch.runtime.testing import FaultyEngine;"
        "from inpaint_batch.runtime.engine import TileBatch; z = np.zeros((1, 3, 64, 64), np.float32);"
        "FaultyEngine('k').fill(TileBatch(z, z[:, :1], z, z[:, :1, :1, :1])); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize("name", ["faulty:", "faulty:q", "faulty:s@soon", "faulty:s@-1", "faulty:s@nan"])
def test_a_schedule_that_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(EngineError):
        FaultyEngine.parse(name)
