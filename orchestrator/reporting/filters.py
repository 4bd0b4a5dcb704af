"""Controls above a list of articles: the page's script hides those that do not fit what is chosen.

An article says what it is in ``data-NAME`` attributes; a control bears the same name. The script shows the controls:
without it every article is there, and no control.
"""

from collections.abc import Iterable, Mapping

from orchestrator.reporting.markup import Html, element, join

_LONGEST_CHOICE = 60


def filtered(noun: str, articles: Iterable[Html], *, controls: Iterable[Html], total: int) -> Html:
    """A list under its controls.

    Args:
        noun: What the articles are, in the plural.
        total: How many there are.
    """
    bar = element(
        "div",
        {"class": "filters", "hidden": "", "role": "group", "aria-label": f"Filter {noun}"},
        *controls,
        element("label", None, "contains ", element("input", {"type": "search", "data-by": "text"})),
        element("button", {"type": "button"}, "Clear"),
        element("output", {"data-noun": noun}, f"{total} {noun}"),
    )
    return element("div", {"class": "filtered"}, bar, *articles)


def choice(name: str, label: str, values: Iterable[str]) -> list[Html]:
    """A control for one of some values; none where there is nothing to choose."""
    found = sorted(dict.fromkeys(values))
    if len(found) < 2:
        return []
    options = [element("option", {"value": ""}, "all")]
    options += [element("option", {"value": f"={value}"}, value[:_LONGEST_CHOICE] or "none") for value in found]
    return [element("label", None, f"{label} ", element("select", {"data-by": name}, *options))]


def span(name: str, label: str) -> list[Html]:
    """A control for the least and the greatest of a number."""
    ends = [
        element(
            "input",
            {"type": "number", "step": "any", "data-by": name, "data-end": end, "placeholder": end, "aria-label": end},
        )
        for end in ("least", "most")
    ]
    return [element("label", None, f"{label} ", ends[0], " to ", ends[1])]


def facts(values: Mapping[str, str]) -> dict[str, str]:
    """Attributes of an article that controls look at."""
    return {f"data-{name}": value for name, value in values.items()}


def group(*parts: str) -> Html:
    """Articles under a heading that goes away with the last of them."""
    return element("section", {"class": "group"}, join(parts))
