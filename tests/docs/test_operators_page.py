"""docs/operators.md says what the operator table says."""

from tests.tool import load


def test_page_is_in_step_with_the_table():
    script = load("operators_page")
    assert script.PAGE.read_text() == script.page(), "run tools/operators_page.py"
