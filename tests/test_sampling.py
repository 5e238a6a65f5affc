import pytest

from inpaint_batch.sampling import evenly


@pytest.mark.parametrize(
    ("num", "most", "chosen"),
    [(0, 3, []), (1, 3, [0]), (3, 3, [0, 1, 2]), (7, 3, [0, 3, 6]), (10, 4, [0, 3, 6, 9]), (2, 8, [0, 1])],
)
def test_first_and_last_are_taken_and_as_many_between(num: int, most: int, chosen: list[int]) -> None:
    assert evenly(range(num), most) == chosen
