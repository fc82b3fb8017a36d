"""Parameters and operations of the small network by the kind of its third layer (figure S4).

    python -m benchmarks.costs --dataset=cifar10 --out=benchmarks/costs-cifar10.png

Counted from shapes by `models.accounting`; prints a Markdown table and draws it.
"""

import argparse
from pathlib import Path

from data import DATASETS
from low_rank_local_connectivity.plots import lines_with_errors
from models import MODELS, Settings, convolution
from models.accounting import LayerCost, layer_costs

LOW_RANK = "low_rank_locally_connected2d"
KINDS = {
    "convolution": ("conv2d", {}),
    "CoordConv": ("coord_conv2d", {}),
    "LRLC": (LOW_RANK, {}),
    "input-dependent LRLC": (LOW_RANK, {"input_dependent": True}),
    "wide convolution": ("wide_conv2d", {}),
    "locally connected": ("locally_connected2d", {}),
}
RANKED = ("LRLC", "input-dependent LRLC", "wide convolution")


def third_layer(dataset: str, kind: str, rank: int, filters: int) -> LayerCost:
    """Returns what the third layer costs if it is of a kind and the others are convolutions."""
    name, settings = KINDS[kind]
    makers = [convolution("conv2d", Settings())] * 2
    makers.append(convolution(name, Settings(spatial_rank=rank, **settings)))
    source = DATASETS[dataset]
    network = MODELS["simple_network"]
    model = network.build(source.input_shape, source.num_classes, makers, filters=filters)
    return next(cost for cost in layer_costs(model) if cost.name == "layer_3")


def main() -> None:
    """Counts what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dataset", default="cifar10", choices=["digits", "mnist", "cifar10"])
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--ranks", default="2,4,8,16,30")
    parser.add_argument("--out", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    ranks = [int(rank) for rank in arguments.ranks.split(",")]
    curves = {}
    print("| third layer | K | parameters | MFLOP per image | banks mixed first |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        for rank in ranks if kind in RANKED else [1]:
            cost = third_layer(arguments.dataset, kind, rank, arguments.filters)
            shown = rank if kind in RANKED else ""
            mixed = f"{cost.combined_flops / 1e6:.1f}" if kind == "LRLC" else ""
            print(
                f"| {kind} | {shown} | {cost.parameters:,} | {cost.flops / 1e6:.1f} | {mixed} |",
                flush=True,
            )
            curves.setdefault(kind, []).append((cost.parameters, cost.flops / 1e6, 0.0))
            if kind == "LRLC":
                point = (cost.parameters, cost.combined_flops / 1e6, 0.0)
                curves.setdefault("LRLC, banks mixed first", []).append(point)
    if arguments.out:
        title = f"third layer of the small network on {arguments.dataset}"
        labels = ("trainable parameters", "MFLOP per image")
        lines_with_errors(curves, arguments.out, *labels, title=title, log_y=True)


if __name__ == "__main__":
    main()
