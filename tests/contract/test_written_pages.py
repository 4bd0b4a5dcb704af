"""docs/metrics.md and docs/options.md say what the code declares, and no more."""

from tests import metrics_page, options_page


def test_the_page_of_metrics_is_the_one_that_the_declared_figures_make() -> None:
    assert metrics_page.PAGE.read_text() == metrics_page.page(), "renew it: python -m tests.metrics_page"


def test_the_page_of_options_is_the_one_that_the_schema_makes() -> None:
    assert options_page.PAGE.read_text() == options_page.page(), "renew it: python -m tests.options_page"
