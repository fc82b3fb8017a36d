"""Images and files that cannot be read, in sentences for the user."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from .dataset import MOST_BYTES, EncodedExamples, Split

SCORED = "Every image that is scored must be readable. Received: {}. Replace or remove that file."
ALL_SCORED = (
    "Every image that is scored must be readable. Received: {} that are not: {}. Replace or remove "
    "those files."
)
WHOLE = (
    "Every file of a prepared dataset must be whole. Received: {}, which is damaged or truncated. "
    "Put it back, or prepare the dataset again."
)
TOO_LARGE = (
    "Every file of an image must have at most {:,} bytes. Received: {}, which has {:,}. Replace or "
    "remove that file."
)
TRAINED = "At least one training image must be readable. Received: none of {}. Check the files."
# The two sentences in TensorFlow's message: in brackets, with quotes and backslashes escaped.
REFUSAL = re.compile(r"assertion failed: \[((?:Every|At least one) .*)\]$", re.MULTILINE)


class UnreadableError(ValueError):
    """Data that a run needs cannot be read; the message is a sentence for the user."""


def refuse_unreadable(
    splits: Iterable[Split], unreadable_images: Callable[[EncodedExamples], list[str]]
) -> None:
    """Decodes every encoded image of some splits, in parallel.

    This is done before training, since evaluation would otherwise stop at each unreadable image,
    after training.

    Args:
        splits: The splits.
        unreadable_images: Function from a split's examples to the names of those whose images
            cannot be read.

    Raises:
        UnreadableError: If any cannot be read; the error names all of them.
    """
    encoded = (examples for examples in splits if isinstance(examples, EncodedExamples))
    names = [name for examples in encoded for name in unreadable_images(examples)]
    if len(names) == 1:
        raise UnreadableError(SCORED.format(names[0]))
    if names:
        raise UnreadableError(ALL_SCORED.format(len(names), ", ".join(names)))


def refuse_too_large(splits: Iterable[Split]) -> None:
    """Refuses files of images that are too large to be read, of any split.

    Raises:
        UnreadableError: If there are any; the error names the first.
    """
    for examples in splits:
        for path in examples.image_files if isinstance(examples, EncodedExamples) else ():
            size = _size_of(path)
            if size > MOST_BYTES:
                raise UnreadableError(TOO_LARGE.format(MOST_BYTES, path, size))


def _size_of(path: str) -> int:
    """Returns the size of a file; 0 if it is gone, which is told when it is read."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def skipped_images(skipped: str | Path) -> list[str]:
    """Returns the names of images that were skipped, each once and in order.

    Args:
        skipped: A file of names, a line each; it is missing if all images were readable.
    """
    path = Path(skipped)
    if not path.exists():
        return []
    return sorted(set(path.read_text("utf-8", "backslashreplace").split("\n")) - {""})


def unreadable_image(error: Exception) -> str | None:
    """Returns what is wrong with the images or their files, in a sentence.

    Args:
        error: What reading batches raised.

    Returns:
        The sentence, with the file's name if it is about one file, or None if the error is about
        something else.

    Example:
        >>> unreadable_image(ValueError("disk full")) is None
        True
    """
    if isinstance(error, UnreadableError):
        return str(error)
    found = REFUSAL.search(str(error))
    return found and re.sub(r"\\(.)", r"\1", found.group(1))
