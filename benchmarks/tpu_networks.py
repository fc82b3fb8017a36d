"""Whole training steps of networks, compiled for TPUs: what `benchmarks.tpu networks` counts."""

import dataclasses
from typing import Any
from unittest import mock

import keras

from benchmarks import tpu_compiler
from benchmarks.tpu_compiler import CHIPS, SLICE, Costs
from benchmarks.undrawn import without_values
from low_rank_local_connectivity.kernels.chips import compiling_for
from low_rank_local_connectivity.models import MODELS, Settings, convolution
from low_rank_local_connectivity.plans import LOW_RANK, Machine, names_of

COUNTED = ("flops", "bytes", "temporary", "held", "reduced", "reductions", "parameters")
SMALL = "simple_network"
PLAIN, LOCAL = "conv2d", "locally_connected2d"
MIXED, PREDICTED = "low_rank_locally_connected2d", "input-dependent"
# The kinds of layer that each network is compiled with: kind, rank and plan.
KINDS = (
    (PLAIN, 0, ""),
    *((MIXED, rank, plan) for rank in (4, 30) for plan in names_of(LOW_RANK)),
    (LOCAL, 0, ""),
    (PREDICTED, 4, ""),
)
OTHER_KINDS = ((PLAIN, 0, ""), (MIXED, 4, "convolve_then_combine"), (LOCAL, 0, ""))
FURTHER_KINDS = (
    ("wide_conv2d", 4),
    ("coord_conv2d", 0),
    ("full_conv2d", 0),
    ("deformable_conv2d", 0),
    ("deformable_conv2d_v1", 0),
)
ALL_KINDS = (PLAIN, LOCAL, MIXED, PREDICTED, *(kind for kind, _ in FURTHER_KINDS))


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step of a network.

    Args:
        chip: Name of a TPU.
        devices: How many of them share a batch.
        network: Name of a network.
        layer: Kind of the layers that are replaced: the last of the small network, those of
            `conv5` of a residual one.
        rank: Their number of banks, 0 if they have none; of wide convolutions, the rank whose
            parameters they match.
        plan: Their plan, empty if they have only one.
        batch: Examples on each device.
        dtype: Dtype policy.
    """

    chip: str
    devices: int
    network: str
    layer: str
    rank: int
    plan: str
    batch: int
    dtype: str = "mixed_bfloat16"

    @property
    def small(self) -> bool:
        """Whether its images are small ones."""
        return "res" not in self.network and "bag" not in self.network

    @property
    def convolution(self) -> "Step":
        """The step of the convolutional network."""
        return dataclasses.replace(self, layer=PLAIN, rank=0, plan="")

    @property
    def topology(self) -> str:
        """The slice that it is compiled for."""
        return SLICE if self.devices > 1 else CHIPS[self.chip].topology

    @property
    def images(self) -> tuple[int, ...]:
        """Shape of its images."""
        return (32, 32, 3) if self.small else (224, 224, 3)

    def build(self) -> keras.Model:
        """Builds the network."""
        network, classes = MODELS[self.network], 10 if self.small else 1000
        settings = Settings(max(self.rank, 1), input_dependent=self.layer == PREDICTED)
        make = convolution(MIXED if self.layer == PREDICTED else self.layer, settings)
        if network.num_layers:
            plain = convolution(PLAIN, settings)
            makers = [plain] * (network.num_layers - 1) + [make]
            return network.build(self.images, classes, convolutions=makers)
        if network.stages and self.layer != PLAIN:
            return network.build(self.images, classes, replace={network.stages[-1]: make})
        return network.build(self.images, classes)


def steps() -> list[Step]:
    """Returns what is compiled, the paper's small network first."""
    small = [
        Step(chip, devices, SMALL, *kind, 512)
        for chip, devices in (("v5e", 1), ("v4", 16))
        for kind in KINDS
    ]
    kinds = [Step("v5e", 1, SMALL, kind, rank, "", 512) for kind, rank in FURTHER_KINDS]
    residual = [
        Step("v4", devices, network, *kind, 128)
        for network in ("resnet18", "resnet50")
        for devices in (16, 1)
        for kind in OTHER_KINDS
    ]
    done = {step.network for step in (*small, *residual)}
    others = [
        Step("v4", 1, name, *kind, 32)
        for name, network in MODELS.items()
        for kind in (OTHER_KINDS if network.num_layers or network.stages else OTHER_KINDS[:1])
        if name not in done
    ]
    return [*small, *residual, *kinds, *others]


def compile_step(step: Step) -> dict[str, int]:
    """Compiles a training step with Adam; returns nothing if it needs more memory than there is."""
    keras.config.set_dtype_policy(step.dtype)
    model = _compiled(step)
    costs = _costs(step, model)
    keras.backend.clear_session()
    if costs is None:
        return {}
    return dataclasses.asdict(costs) | {"parameters": model.count_params()}


def _compiled(step: Step) -> keras.Model:
    """Returns a network with an optimizer, whose layers choose their plans as on a TPU."""
    with without_values():
        model = step.build()
    for layer in model._flatten_layers():
        if hasattr(layer, "machine"):
            layer.machine = Machine("jax", "tpu", CHIPS[step.chip].memory)
        if step.plan and hasattr(layer, "spatial_rank"):
            layer.implementation = step.plan
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss)
    with without_values():
        model.optimizer.build(model.trainable_variables)
    return model


def _costs(step: Step, model: keras.Model) -> Costs | None:
    """Compiles what Keras's `fit` runs, under the shardings of `keras.distribution`."""
    place = _Places(step)
    state = [
        [place.variable(one) for one in group]
        for group in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    ]
    examples = step.batch * step.devices
    images = place.data(keras.KerasTensor((examples, *step.images), "float32"))
    labels = place.data(keras.KerasTensor((examples,), "int32"))
    shared = place.parallel if step.devices > 1 else None
    # Layers are told of the distribution, and Keras's own code is not: its devices are not there.
    told = mock.patch.object(keras.distribution, "distribution", return_value=shared)
    with compiling_for(step.chip), told:
        return tpu_compiler.compiled_costs(
            model.train_step, tuple(state), (images, labels), donated=(0,)
        )


class _Places:
    """Where a step's tensors lie on devices that are not there."""

    def __init__(self, step: Step) -> None:
        import jax
        import numpy as np

        devices = tpu_compiler.devices(step.topology)[: step.devices]
        names = [f"tpu:{index}" for index in range(len(devices))]
        self.parallel = keras.distribution.DataParallel(devices=names)
        self.mesh = jax.sharding.Mesh(np.array(devices), self.parallel.device_mesh.axis_names)

    def variable(self, variable: Any) -> Any:
        """Returns what stands for a variable."""
        return self._placed(variable, self.parallel.get_variable_layout(variable))

    def data(self, tensor: Any) -> Any:
        """Returns what stands for a batch."""
        return self._placed(tensor, self.parallel.get_data_layout(tensor.shape))

    def _placed(self, value: Any, layout: Any) -> Any:
        from jax.sharding import NamedSharding, PartitionSpec

        return tpu_compiler.abstract(value, NamedSharding(self.mesh, PartitionSpec(*layout.axes)))
