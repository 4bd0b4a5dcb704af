"""docs/metrics.md says what is declared, and no more."""

from tests.metrics_page import PAGE, page


def test_it_is_the_page_that_the_declared_figures_make() -> None:
    assert PAGE.read_text() == page(), "renew it: python -m tests.metrics_page"
