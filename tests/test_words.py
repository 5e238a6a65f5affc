from inpaint_batch.words import counted


def test_one_is_singular_and_all_others_plural():
    assert [counted(number, "torn line") for number in (0, 1, 2)] == ["0 torn lines", "1 torn line", "2 torn lines"]
