"""Tables in Markdown, and the text between two marks of a file."""

import pytest

from epkit.files import renewed
from epkit.messages import markdown


def test_a_table_is_a_line_a_row():
    table = markdown(("name", "σ (V)"), [["a|b", 1e-5], ["c", ""]], "lr")
    assert table == "| name | σ (V) |\n| --- | ---: |\n| a\\|b | 1e-05 |\n| c |  |\n"
    assert markdown(("a", "b"), []) == "| a | b |\n| --- | --- |\n"


def test_the_text_between_two_marks_is_renewed_and_no_other(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- b -->\nafter\n")
    assert renewed(page, ("<!-- a -->", "<!-- b -->"), "new\n") == "before\n<!-- a -->\nnew\n<!-- b -->\nafter\n"
    for marks in (("<!-- a -->", "<!-- c -->"), ("<!-- c -->", "<!-- b -->"), ("<!-- b -->", "<!-- a -->")):
        with pytest.raises(ValueError, match="unpack"):
            renewed(page, marks, "new\n")
