import pytest

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.manifest.schema import OPTION_FIELDS, row_config
from inpaint_batch.manifest.seen import Seen
from inpaint_batch.types import Row


def row(**options: str) -> Row:
    return Row(id="1", line=7, image="/a", mask="/m", output="a", options=options)


def test_option_names_are_what_users_write() -> None:
    assert list(OPTION_FIELDS) == [
        "mask_polarity", "mask_threshold", "dilate", "feather", "jpeg", "mask_from", "mask_image", "grain", "xmp",
        "empty_mask", "page",
    ]  # fmt: skip


def test_no_option_keeps_the_defaults() -> None:
    defaults = RowConfig(dilate_px=3)
    assert row_config(row(), defaults) is defaults


def test_options_override_the_defaults() -> None:
    defaults = RowConfig(dilate_px=3, feather_px=4)
    changed = row_config(row(dilate="5", mask_polarity="Black", jpeg="lossless", mask_threshold="0"), defaults)
    assert changed == RowConfig(dilate_px=5, feather_px=4, mask_polarity="black", jpeg="lossless", mask_threshold=0)


def test_whole_numbers_as_table_programs_write_them() -> None:
    assert row_config(row(dilate="3.0", feather="+2"), RowConfig()) == RowConfig(dilate_px=3, feather_px=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dilate": "many"}, "dilate must be a whole number, not 'many'"),
        ({"dilate": "2.5"}, "dilate must be a whole number, not '2.5'"),
        ({"dilate": "1e2"}, "dilate must be a whole number"),
        ({"dilate": "-1"}, "dilate must lie in 0..256 px, not -1"),
        ({"feather": "999999999"}, "feather must lie in 0..256 px"),
        ({"mask_threshold": "255"}, "mask_threshold must lie in 0..254, not 255"),
        ({"mask_polarity": "grey"}, "mask_polarity must be white or black, not 'grey'"),
        ({"jpeg": "lossy"}, "jpeg must be patch or lossless, not 'lossy'"),
    ],
)
def test_a_bad_value_fails_the_row(options: dict[str, str], said: str) -> None:
    with pytest.raises(RowError) as caught:
        row_config(row(**options), RowConfig())
    assert caught.value.code is FailureCode.READ
    assert said in caught.value.message
    assert "correct the manifest" in caught.value.message


def test_seen_is_a_set() -> None:
    seen, reference = Seen(), set()
    for number in range(120_000):
        text = str(number * 7919 % 100_003)
        assert seen.add(text) is (text not in reference)
        reference.add(text)
    assert not any(seen.add(text) for text in reference)
