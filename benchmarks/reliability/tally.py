"""What a part of the campaign has done, counted, and what ended otherwise than allowed."""

import collections
import dataclasses


@dataclasses.dataclass
class Tally:
    """Counts by what was done and how it ended, and a line for each that is not allowed.

    Args:
        title: The part of the campaign.
    """

    title: str
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    kinds: dict[str, collections.Counter] = dataclasses.field(default_factory=dict)
    wrong: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)

    def add(self, kind: str, ending: str, wrong: str | None = None) -> None:
        """Counts one; `wrong` says what is not allowed about it."""
        self.kinds.setdefault(kind, collections.Counter())[ending] += 1
        self.counts[ending] += 1
        if wrong is not None:
            self.wrong.append(f"{kind}: {wrong}")
            print(f"WRONG {self.wrong[-1]}", flush=True)

    def in_markdown(self) -> str:
        """Returns a table of the counts, and the list of what is not allowed."""
        endings = list(self.counts)
        lines = [f"### {self.title}", "", f"| | {' | '.join(endings)} |"]
        lines.append("|---" * (len(endings) + 1) + "|")
        rows = [*sorted(self.kinds.items()), ("all", self.counts)]
        lines += [
            f"| {kind} | {' | '.join(str(counts[name] or '') for name in endings)} |"
            for kind, counts in rows
        ]
        told = [f"* {line}" for line in self.wrong]
        count = f"Not allowed: {len(told) or 'none'}."
        return "\n".join([*lines, "", *self.remarks, count, *told, ""])
