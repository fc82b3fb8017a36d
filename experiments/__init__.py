"""The experiments that run_experiment.py runs, as values, and files of flags for some of them."""

__all__: list[str] = []
