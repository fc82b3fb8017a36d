"""Documents of the repository as pages, and links that work both there and here.

A page that has the line `<!-- the document ../FILE -->` continues with that document, without its
title. Links of any page to a document that is a page lead to the page; other links into the
repository become downloads.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


DOCUMENTS = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "benchmarks/RESULTS.md": "benchmarks",
    "experiments/paper/RESULTS.md": "results",
}
INCLUDED = re.compile(r"^<!-- the document (\S+) -->$", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)((?:#[^)\s]*)?)\)")


def relinked(text: str, folder: Path, root: Path, docs: Path) -> str:
    """Returns a document with its links as a page in `docs` needs them.

    Args:
        text: The document, in Markdown.
        folder: Folder of the document, from which its links are.
        root: Folder of the repository.
        docs: Folder of the pages.
    """

    def link(match: re.Match) -> str:
        mark, words, given, anchor = match.groups()
        target = (folder / given).resolve()
        name = target.relative_to(root).as_posix() if target.is_relative_to(root) else given
        if name in DOCUMENTS or target.is_dir():
            return f"[{words}]({DOCUMENTS.get(name, 'contributing')}.md{anchor})"
        path = os.path.relpath(target, docs)
        if target.suffix == ".md" and not target.is_relative_to(docs):
            return f"{{download}}`{words} <{path}>`"
        return f"{mark}[{words}]({path}{anchor})"

    return LINK.sub(link, text)


def read(app: "Sphinx", name: str, content: list[str]) -> None:
    """Adds the document that a page continues with, and leads all links to pages."""
    docs = Path(app.srcdir)
    root = docs.parent
    path = Path(app.env.doc2path(name))
    if path.suffix != ".md" or path.is_relative_to(docs / "generated"):
        return
    included = INCLUDED.search(content[0])
    text = relinked(content[0], path.parent, root, docs)
    if included:
        document = (docs / included[1]).resolve()
        app.env.note_dependency(document)
        body = document.read_text().partition("\n")[2]
        text = INCLUDED.sub(lambda _: relinked(body, document.parent, root, docs), text)
    content[0] = text


def setup(app: "Sphinx") -> dict[str, bool]:
    """Connects the documents with Sphinx."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
