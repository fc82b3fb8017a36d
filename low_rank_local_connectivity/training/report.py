"""Forwards to `low_rank_local_connectivity.experiments.paper.report`, for one release."""

import runpy

if __name__ == "__main__":
    runpy.run_module("low_rank_local_connectivity.experiments.paper.report", run_name="__main__")
