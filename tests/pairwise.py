"""Few combinations of many options, in which every pair of values still meets."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def pairwise(
    options: Mapping[str, Sequence[Any]], allowed: Callable[[dict], bool] = lambda _: True
) -> list[dict[str, Any]]:
    """Returns combinations that cover every pair of option values that can meet at all.

    Greedy: of fifty random allowed combinations, the one that adds most uncovered pairs.
    """
    draw = random.Random(0)
    names = list(options)

    def pairs_of(choice):
        indices = [(name, options[name].index(choice[name])) for name in names]
        return set(itertools.combinations(indices, 2))

    candidates = []
    while len(candidates) < 3000:
        choice = {name: draw.choice(options[name]) for name in names}
        if allowed(choice):
            candidates.append((choice, pairs_of(choice)))
    missing = set().union(*(pairs for _, pairs in candidates))
    chosen = []
    while missing:
        sample = draw.sample(candidates, 50)
        choice, pairs = max(sample, key=lambda candidate: len(candidate[1] & missing))
        if pairs & missing:
            chosen.append(choice)
            missing -= pairs
    return chosen
