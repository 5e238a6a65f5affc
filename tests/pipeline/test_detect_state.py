"""What `mask` remembers survives a kill, and lines that it did not write."""

from pathlib import Path

import pytest

from inpaint_batch.errors import RowError, StorageError
from inpaint_batch.holes.detect import DetectConfig
from inpaint_batch.pipeline import detect_state
from inpaint_batch.pipeline.detect_state import STATE, Seen, StateFile, read_state, version_of
from inpaint_batch.storage.object_errors import ObjectError


def test_lines_are_read_back_the_last_one_of_an_image_counting(tmp_path):
    config, first, last = DetectConfig(), Seen("1 2", 0.5, {"dust": 0.1}, "3 4"), Seen("1 9", 0.0, {}, "")
    for anew, seen in ((True, first), (False, last)):
        state = StateFile(tmp_path, config, anew=anew)
        state.add("a.jpg", seen)
        state.add(f"{anew}.jpg", first)
        state.close()
    assert read_state(tmp_path, config, has_lists=True) == {"a.jpg": last, "True.jpg": first, "False.jpg": first}


@pytest.mark.parametrize("cut", ["", "{", '{"output": "b.jpg", "ver', "[1, 2]", '{"output": "b.jpg"}', "7"])
def test_what_cannot_be_understood_is_looked_at_again(tmp_path, cut):
    config = DetectConfig()
    state = StateFile(tmp_path, config, anew=True)
    state.add("a.jpg", Seen("1 2", 0.5, {}, ""))
    state.close()
    with (tmp_path / STATE).open("a") as file:
        file.write(cut)  # without an end of line, as a kill leaves it
    state = StateFile(tmp_path, config, anew=False)
    state.add("c.jpg", Seen("5 6", 0.5, {}, ""))
    state.close()
    assert list(read_state(tmp_path, config, has_lists=False)) == ["a.jpg", "c.jpg"]


def test_other_settings_are_refused_by_name(tmp_path):
    StateFile(tmp_path, DetectConfig(), anew=True).close()
    with pytest.raises(StorageError, match=r"\(dilate_px, threshold\)"):
        read_state(tmp_path, DetectConfig(threshold=20, dilate_px=3), has_lists=True)
    assert read_state(tmp_path, None, has_lists=True) == {}
    assert read_state(tmp_path, DetectConfig(threshold=20), has_lists=False) == {}  # it had not come to any image


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk here that is always full")
def test_a_full_disk_ends_it_as_such(tmp_path):
    (tmp_path / STATE).symlink_to("/dev/full")
    state = StateFile(tmp_path, DetectConfig(), anew=True)
    for step in (lambda: state.add("a.jpg", Seen("1 2", 0.5, {}, "")), state.close):
        with pytest.raises(StorageError, match=r"found\.jsonl: the disk is full"):
            step()


def test_a_version_changes_with_the_file(tmp_path):
    file = tmp_path / "a"
    assert version_of(str(file)) == ""
    file.write_bytes(b"1")
    first = version_of(str(file))
    file.write_bytes(b"12")
    assert version_of(str(file)) not in ("", first)


def test_an_image_of_which_the_store_does_not_tell_fails_alone(monkeypatch):
    def busy(uri):
        raise ObjectError("busy", "slow down")

    monkeypatch.setattr(detect_state, "describe", busy)
    with pytest.raises(RowError, match=r"cannot read the image s3://bucket/a\.png: slow down") as caught:
        version_of("s3://bucket/a.png")
    assert caught.value.retryable
