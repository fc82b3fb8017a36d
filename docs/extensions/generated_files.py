"""Files that the build writes among the documents."""

from pathlib import Path


def write_if_new(path: Path, text: str) -> None:
    """Writes a file, but not what it says already, so that Sphinx does not read it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def remove_others(folder: Path, kept: set[Path]) -> None:
    """Removes what an earlier build wrote into a folder and this one did not."""
    for path in folder.glob("*"):
        if path not in kept:
            path.unlink()
