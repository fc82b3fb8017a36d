"""The random changes of training images: their names and strengths."""

from collections.abc import Iterable

# Of one image at a time, by the pipelines' own code: they have no strength.
VIEWS = ("crop", "flip")
# Of a batch at a time, by Keras's layers, in this order, with their usual strengths.
STRENGTHS = {"randaugment": 0.5, "erasing": 0.25, "mixup": 0.2, "cutmix": 1.0}
# Those that mix the labels too.
MIXING = ("mixup", "cutmix")
AUGMENTATIONS = (*VIEWS, *STRENGTHS)


def are_known(items: Iterable[str]) -> bool:
    """Returns whether all items are augmentations, none twice, with strengths where they have one.

    Example:
        >>> are_known(["flip", "mixup:0.4"]), are_known(["flip:0.4"]), are_known(["mixup:2"])
        (True, False, False)
    """
    items = list(items)
    names = [item.partition(":")[0] for item in items]
    return len(set(names)) == len(names) and all(map(_is_known, items))


def _is_known(item: str) -> bool:
    name, colon, text = item.partition(":")
    if not colon:
        return name in AUGMENTATIONS
    try:
        return name in STRENGTHS and 0 < float(text) <= 1
    except ValueError:
        return False


def views_among(items: Iterable[str]) -> tuple[str, ...]:
    """Returns the augmentations that are of one image at a time."""
    return tuple(item for item in items if item in VIEWS)


def strengths_among(items: Iterable[str]) -> dict[str, float]:
    """Returns the augmentations that are of a batch at a time, in their order, and how strong.

    Example:
        >>> strengths_among(["mixup:0.4", "flip", "erasing"])
        {'erasing': 0.25, 'mixup': 0.4}
    """
    given = {}
    for item in items:
        name, colon, text = item.partition(":")
        if name in STRENGTHS:
            given[name] = float(text) if colon else STRENGTHS[name]
    return {name: given[name] for name in STRENGTHS if name in given}
