"""Trains one network on one dataset, and leaves behind its result, a picture and a servable model.

    python run_experiment.py --dataset=digits --spatial_rank=4

Everything is a flag; `--help` lists them. The flags become an `Experiment`, which is checked before
any framework is loaded. Running the same command again continues an unfinished run and prints the
result of a finished one.

    python run_experiment.py --dataset=digits --spatial_ranks=2,4,8 --num_seeds=3

A list of ranks or several seeds make a sweep: a process per run, a record per run in
`<model_dir>/records.jsonl`, and the rank chosen on the validation split at the end. The command
may be started again, and several times at once.
"""

from low_rank_local_connectivity.experiments.command import main

if __name__ == "__main__":
    main()
