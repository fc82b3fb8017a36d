"""Trains one network on one dataset and writes its result, a picture and a model for serving.

    python run_experiment.py --dataset=digits --spatial_rank=4

All settings are flags, which `--help` lists. They become an `Experiment`, which is checked before
any framework is loaded. Given again, the same command continues an unfinished run and prints the
result of a finished one.

    python run_experiment.py --dataset=digits --spatial_ranks=2,4,8 --num_seeds=3

A list of ranks or several seeds make a sweep, which trains each run in a process of its own, adds a
record of each to `<model_dir>/records.jsonl`, and prints the rank chosen on the validation split.
The command can be repeated, and run several times at once.
"""

from low_rank_local_connectivity.experiments.command import main

if __name__ == "__main__":
    main()
