"""A real browser without a window, that reaches nothing, and what a page did in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
_SHOWN = "all => all.filter(one => one.checkVisibility()).map(one => one.dataset[NAME])"


@dataclass(slots=True)
class Opened:
    """A page in the browser."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Of the console, and errors of scripts."""
    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, ``data:`` left out."""

    def shown(self, name: str) -> list[str]:
        """What the articles that can be seen say of themselves in ``data-NAME``."""
        return self.page.eval_on_selector_all("article", _SHOWN.replace("NAME", f"'{name}'"))

    def widths(self) -> list[int]:
        """Of every picture on the page, decoded; 0 for one that is none."""
        return self.page.evaluate(
            "Promise.all([...document.images].map(one => one.decode().then(() => one.naturalWidth, () => 0)))"
        )


@contextmanager
def browser(executable: str, user_data: Path, *, colours: str = "light", width: int = 1280) -> Iterator[BrowserContext]:
    """The browser with an empty profile.

    Args:
        user_data: An empty folder.
        colours: ``light`` or ``dark``.
        width: Of the window, pixels.
    """
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(user_data),
            executable_path=executable,
            args=list(_FLAGS),
            color_scheme="dark" if colours == "dark" else "light",
            viewport={"width": width, "height": 900},
        )
        yield context
        context.close()


def opened(context: BrowserContext, path: Path) -> Opened:
    """The page in a file, loaded."""
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(path.resolve().as_uri(), wait_until="load")
    found.requests = [one for one in found.requests if not one.startswith("data:")]
    return found
