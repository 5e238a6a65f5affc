from inpaint_batch.words import counted, either, first_line, one_line


def test_one_is_singular_and_all_others_plural():
    assert [counted(number, "torn line") for number in (0, 1, 2)] == ["0 torn lines", "1 torn line", "2 torn lines"]


def test_the_first_line_of_an_error() -> None:
    assert first_line(RuntimeError("\nout of memory\nstack trace")) == "out of memory"
    assert first_line(MemoryError()) == "MemoryError"


def test_choices_are_told_as_a_person_would() -> None:
    assert [either("a"), either("ab"), either(("x", "y", "z"))] == ["a", "a or b", "x, y or z"]


def test_an_error_of_several_lines_in_one() -> None:
    assert one_line(ValueError(" no\n  such\tthing ")) == "no such thing"
    assert one_line("abc def", 5) == "abc d"
