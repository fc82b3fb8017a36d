"""What data-parallel training costs in communication: a model on paper, from counts.

    python -m benchmarks.scaling

A step's gradients, four bytes per trainable parameter, are all-reduced; a ring moves
`2 (n - 1) / n` of them over every device's link. Batch normalisation that is synchronised adds two
numbers per channel. Computing takes three times the forward operations. Nothing is assumed to
overlap, so the efficiencies are lower bounds as far as the assumed rates hold.

    python -m benchmarks.scaling --measure

trains on this machine instead (Linux): one process on one core against two on a core each, which
talk over loopback.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from low_rank_local_connectivity.inspection import total_cost
from low_rank_local_connectivity.models import MODELS, Settings, convolution

ROOT = Path(__file__).parents[1]
LOW_RANK = "low_rank_locally_connected2d"


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices that train together.

    Args:
        name: What they are.
        devices: How many.
        teraflops: What one computes per second at most, in 10^12 operations.
        utilization: Which part of it a convolutional network reaches.
        gigabytes: What one sends per second, in 10^9 bytes.
    """

    name: str
    devices: int
    teraflops: float
    utilization: float
    gigabytes: float


# Peaks in bfloat16 from the maker's data sheets. What a TPU slice needs, its compiler says:
# benchmarks.tpu.
MACHINES = (
    Machine("8 H100 GPUs, NVLink", 8, 989, 0.25, 300),
    Machine("8 machines, one H100 each, 100 Gbit/s", 8, 989, 0.25, 12.5),
)
# Network, image shape, classes, examples per device, what is replaced.
CASES = {
    "small network, K=4 in layer 3": ("simple_network", (32, 32, 3), 10, 512),
    "small network, locally connected layer 3": ("simple_network", (32, 32, 3), 10, 512),
    "ResNet-50": ("resnet50", (224, 224, 3), 1000, 128),
    "ResNet-50, K=4 in conv5": ("resnet50", (224, 224, 3), 1000, 128),
    "ResNet-50, locally connected conv5": ("resnet50", (224, 224, 3), 1000, 128),
}


def build(name: str):
    """Builds the network of a case."""
    network, shape, classes, _ = CASES[name]
    kind = "locally_connected2d" if "locally" in name else LOW_RANK
    make = convolution(kind, Settings(spatial_rank=4))
    if network == "simple_network":
        plain = convolution("conv2d", Settings())
        return MODELS[network].build(shape, classes, [plain, plain, make])
    replace = {"conv5": make} if "conv5" in name else {}
    return MODELS[network].build(shape, classes, replace=replace)


def measure() -> None:
    """Prints the milliseconds of a step of one worker and of two, a core each."""
    flags = ["--dataset=synthetic", "--image_size=32", "--epochs=3", "--validation_every=3"]
    flags += ["--batch_size=32", "--export_formats=none", "--layer_types=conv2d"]
    one = _step_milliseconds(flags, 1)
    two = _step_milliseconds(flags, 2)
    print("| workers | ms per step of 32 examples | speed |")
    print("|---|---|---|")
    print(f"| 1 | {one:.0f} | 1.00 |")
    print(f"| 2 | {two:.0f} | {one / two:.2f} |")


def _step_milliseconds(flags: list[str], count: int) -> float:
    """Trains with some workers; returns what the chief says of its second epoch."""
    addresses = [f"localhost:{29500 + index}" for index in range(count)]
    strategy = "multi_worker" if count > 1 else "one_device"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run_experiment.py"), f"--model_dir={folder}/run"]
        command += [*flags, f"--strategy={strategy}"]
        workers = []
        for index in range(count):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            own = {"TF_CONFIG": json.dumps(task)} if count > 1 else {}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            pinned = ["taskset", "--cpu-list", str(index), *command]
            workers.append(subprocess.Popen(pinned, env=os.environ | own, **pipes))
        outputs = [worker.communicate()[0] for worker in workers]
    # The first epoch compiles, the last one validates.
    return float(re.findall(r"(\d+)ms/step", outputs[0])[1])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="two workers on this machine")
    if parser.parse_args().measure:
        measure()
        return
    head = "| network | devices | batch per device | MB all-reduced | ms all-reducing "
    print(head + "| ms computing | efficiency |")
    print("|---|---|---|---|---|---|---|")
    for name, (*_, batch) in CASES.items():
        cost = total_cost(build(name))
        megabytes = 4 * cost.parameters / 1e6
        for machine in MACHINES:
            share = 2 * (machine.devices - 1) / machine.devices
            sending = share * megabytes / machine.gigabytes
            rate = machine.teraflops * machine.utilization * 1e9
            computing = 3 * batch * cost.combined_flops / rate
            kept = computing / (computing + sending)
            print(
                f"| {name} | {machine.name} | {batch} | {megabytes:.1f} | {sending:.2f} "
                f"| {computing:.1f} | {kept:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
