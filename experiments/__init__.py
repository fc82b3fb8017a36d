"""What run_experiment.py runs: experiments as values, and files of flags that describe some."""

__all__: list[str] = []
