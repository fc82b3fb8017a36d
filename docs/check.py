"""Opens every page of the built documentation in a browser and says what is wrong with it.

    python docs/check.py build/docs/html
    python docs/check.py build/docs/html --shots=FOLDER

Fails on an error in the console, a missing picture or file, a page wider than a telephone, a link
within the site that leads nowhere, a search without a hit, and messages of a framework on a page.
Needs chromium, of Debian's package of that name; `CHROMIUM` may name another.
"""

import argparse
import contextlib
import functools
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

from playwright.sync_api import ConsoleMessage, Page, Response, sync_playwright

SCREEN, TELEPHONE = (1280, 900), (390, 844)
SEARCHED = "LowRankLocallyConnected2D"
# What frameworks write about a machine.
MESSAGES = (
    "absl::InitializeLog",
    "oneDNN",
    "cuInit",
    "TF-TRT",
    "WARNING:tensorflow",
    "UserWarning",
)
SHOWN = (
    "index",
    "first_run",
    "layers",
    "results",
    "generated/flags",
    "generated/api/low_rank_local_connectivity.LowRankLocallyConnected2D",
    "generated/gallery/index",
    "generated/gallery/plot_sensor_spectrograms",
)
# Everything that is asked of a page at once.
FACTS = """() => ({
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    names: [...document.querySelectorAll("[id], a[name]")].map(e => e.id || e.name),
    missing: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    text: document.body.innerText,
})"""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder on loopback and yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing of requests."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Visit:
    """What was found on the pages."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.wrong: list[str] = []
        self.names: dict[str, set[str]] = {}
        self.links: dict[str, list[str]] = {}
        self.here = ""
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.say(str(error)))
        page.on("response", self._receive)

    def say(self, what: str) -> None:
        """Notes something that is wrong with the present page."""
        self.wrong.append(f"{self.here}: {what}")

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.say(said.text)

    def _receive(self, response: Response) -> None:
        if response.status >= 400:
            self.say(f"{response.status} {response.url}")

    def open(self, name: str) -> None:
        """Looks at a page, as wide as a screen and as a telephone."""
        self.here = name
        self.page.set_viewport_size(_size(SCREEN))
        self.page.goto(f"{self.address}/{name}", wait_until="load")
        self.page.evaluate("for (const i of document.images) i.loading = 'eager'")
        self.page.wait_for_function("[...document.images].every(i => i.complete)")
        facts = self.page.evaluate(FACTS)
        self.names[name] = {*facts["names"], ""}
        self.links[name] = [link for link in facts["links"] if link.startswith(self.address)]
        for source in facts["missing"]:
            self.say(f"the picture {source} is missing")
        for message in MESSAGES:
            if message in facts["text"] and not name.startswith("_modules"):
                self.say(f"the page holds {message!r}")
        self.page.set_viewport_size(_size(TELEPHONE))
        width = self.page.evaluate("document.documentElement.scrollWidth")
        if width > TELEPHONE[0]:
            self.say(f"the page is {width} pixels wide on a telephone of {TELEPHONE[0]}")

    def follow(self, folder: Path) -> None:
        """Notes every link within the site that leads nowhere."""
        for name, links in self.links.items():
            self.here = name
            for link in sorted(set(links)):
                page, anchor = urldefrag(link.removeprefix(self.address + "/"))
                page = unquote(page.partition("?")[0]) or "index.html"
                if not (folder / page).is_file():
                    self.say(f"the link to {page} leads nowhere")
                elif page in self.names and unquote(anchor) not in self.names[page]:
                    self.say(f"the link to {page}#{anchor} leads to no such place")

    def search(self) -> None:
        """Notes whether a layer is found."""
        self.here = "search.html"
        self.page.goto(f"{self.address}/search.html?q={SEARCHED}")
        try:
            self.page.wait_for_selector("#search-results li a", timeout=20_000)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was found
            self.say(f"nothing is found for {SEARCHED}: {error}")


def _size(width_and_height: tuple[int, int]) -> Any:
    return dict(zip(("width", "height"), width_and_height, strict=True))


def photograph(page: Page, address: str, folder: Path) -> None:
    """Takes pictures of some pages, as wide as a screen and as a telephone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHOWN:
        for size in (SCREEN, TELEPHONE):
            page.set_viewport_size(_size(size))
            page.goto(f"{address}/{name}.html", wait_until="load")
            page.screenshot(path=folder / f"{name.replace('/', '-')}-{size[0]}.png")


def main() -> None:
    """Visits all pages and exits with what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=Path, help="Folder for pictures of some pages.")
    given = parser.parse_args()
    executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with served(given.folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        visit = Visit(browser.new_page(), address)
        pages = sorted(path.relative_to(given.folder) for path in given.folder.rglob("*.html"))
        for path in pages:
            visit.open(path.as_posix())
        visit.follow(given.folder)
        visit.search()
        if given.shots:
            photograph(browser.new_page(), address, given.shots)
        browser.close()
    print(*visit.wrong, f"{len(pages)} pages, {len(visit.wrong)} faults", sep="\n")
    sys.exit(bool(visit.wrong))


if __name__ == "__main__":
    main()
