"""The layers that are measured against each other, by the names under which they are printed."""

import keras

from benchmarks.peers import ReleaseFormula, local_peer, local_peer_names
from benchmarks.workloads import Workload

CONVOLUTION = "convolution"
LOCALLY_CONNECTED = "locally connected"
LOW_RANK = "low rank, K="
INPUT_DEPENDENT = "input-dependent, K="
RELEASE = "release's formula, K="


def names(workload: Workload, ranks: list[int], only_ours: bool = False) -> list[str]:
    """Returns what can be measured at these shapes, the convolution first."""
    kinds = [LOW_RANK, INPUT_DEPENDENT] + ([] if only_ours else [RELEASE])
    low_rank = [f"{kind}{rank}" for kind in kinds for rank in ranks]
    peers = [] if only_ours else local_peer_names(workload)
    return [CONVOLUTION, *low_rank, LOCALLY_CONNECTED, *peers]


def contestants(workload: Workload, chosen: list[str]) -> dict[str, keras.Layer]:
    """Makes the layers of these names."""
    return {name: _make(workload, name) for name in chosen}


def _make(workload: Workload, name: str) -> keras.Layer:
    if name == CONVOLUTION:
        return workload.convolution()
    if name == LOCALLY_CONNECTED:
        return workload.locally_connected()
    kind, _, rank = name.rpartition("=")
    if kind + "=" == LOW_RANK:
        return workload.low_rank(int(rank))
    if kind + "=" == INPUT_DEPENDENT:
        return workload.low_rank(int(rank), input_dependent=True)
    if kind + "=" == RELEASE:
        return ReleaseFormula(workload, int(rank))
    return local_peer(workload, name)
