"""Small experiments on where networks get their sense of place, minutes each on two CPU cores.

Each module is one study, with a claim and the criterion by which it would have failed:
`python -m experiments.studies.red_green --seeds=5`. Records are one JSON line per run, so a study
that is stopped goes on where it was; tables and pictures are made from them.
"""

__all__: list[str] = []
