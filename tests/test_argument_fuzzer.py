"""Every argument of every public callable, given odd values: taken, or refused in a sentence.

A row of `FUNCTIONS` has the arguments with which a function works; in turn each of them is
replaced by values of `odd_values.ODD`. Layers take their rows from `cases.CASES`.
"""

import functools
import inspect
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from cases import CASES
from odd_values import CALLED, FITTING, chosen, complaint, parameters

from low_rank_local_connectivity import (
    conversion,
    equivariance,
    export,
    initializers,
    inspection,
    layers,
    legacy,
    ops,
    plans,
    plots,
    regularizers,
)
from low_rank_local_connectivity.plans import moved

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore")]
EXTENT = [False, pytest.param(True, marks=pytest.mark.slow)]
LAYERS = {case.layer: case for case in reversed(CASES)}
# Arguments of layers that Keras itself interprets, as it does in its own.
KERAS_OWN = ("name", "dtype", "trainable", "activation")
KERAS_KINDS = ("initializer", "regularizer", "constraint")
# Wrappers, whose rows are not in the table of cases.
WRAPPERS = {
    "OverLevels": {"layer": keras.layers.BatchNormalization(), "data_format": "channels_last"},
    "WithBackground": {"layer": keras.layers.Conv2D(5, 3), "value": 0.5},
}


def keras_does(name: str, value: Any) -> None:
    """Makes, builds and describes Keras's own layer with an argument."""
    if name in ("momentum", "epsilon"):
        layer = keras.layers.BatchNormalization(**{name: value})
    elif name in KERAS_OWN:
        layer = keras.layers.Conv2D(4, 3, **{name: value})
    elif name.endswith(KERAS_KINDS):
        layer = keras.layers.Conv2D(4, 3, **{f"kernel_{name.rpartition('_')[2]}": value})
    else:
        return
    layer.build((2, 8, 9, 3))
    layer.get_config()


def arguments_of(kind: type) -> dict[str, Any]:
    """Returns the arguments of a layer and their annotations."""
    found = dict.fromkeys([*getattr(kind, "ARGUMENTS", ()), *KERAS_OWN[:3]], Any)
    for one in reversed(kind.__mro__):
        if "__init__" in vars(one) and one.__module__.startswith("low_rank_local_connectivity"):
            found |= {n: a for n, a in parameters(one).items() if n in found or one is kind}
    return found


@pytest.mark.parametrize("every", EXTENT)
@pytest.mark.parametrize("name", [*LAYERS, *WRAPPERS])
def test_a_layer_takes_an_odd_argument_or_says_why_not(name, every):
    kind, case = getattr(layers, name), LAYERS.get(name)
    given = case.arguments if case else WRAPPERS[name]
    found = []
    for argument, annotation in arguments_of(kind).items():
        for label, value in chosen(every, name + argument):
            made: list[Any] = []
            make = functools.partial(made_layer, kind, made)
            wrong = complaint(make, given, argument, value, keras_does, label)
            if made and not wrong:
                wrong = unfit(annotation, label) or use(made[0], case, argument, value)
            found += [f"{argument}={label}: {wrong}"] if wrong else []
    assert not found, "\n".join(found)


def made_layer(kind: type, made: list, **arguments: Any) -> None:
    made.append(kind(**arguments))


def unfit(annotation: Any, label: str) -> str | None:
    """Returns that a value was taken that is not of the type that the signature says."""
    fits = label in FITTING.get(annotation, {label})
    return None if fits else f"taken, where the signature says {annotation}"


def use(layer: Any, case: Any, argument: str, value: Any) -> str | None:
    """Returns what fails where a layer that took an odd argument is described and built."""

    def act(**_: Any) -> None:
        layer.get_config()
        if case:
            layer.build(case.input_shape)
            layer.compute_output_shape(case.input_shape)

    wrong = complaint(act, {}, argument, value, keras_does)
    # A kernel that does not fit the input: which of several arguments is at fault is not known.
    return None if wrong and wrong.startswith("does not say it: ") else wrong


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_takes_an_odd_input_shape_or_says_why_not(name):
    case = LAYERS[name]
    short, long = case.input_shape[1:], (*case.input_shape, 3)
    shapes = [*chosen(False, name), ("no batch", short), ("one more axis", long)]
    shapes += [("a size in words", (None, "8", *case.input_shape[2:]))]
    found = []
    for label, shape in shapes:
        for method in ("build", "compute_output_shape"):
            act = getattr(case.make(), method)
            if wrong := complaint(act, {}, "input_shape", shape, None, label):
                found.append(f"{method}({label}): {wrong}")
    assert not found, "\n".join(found)


def zeros(*shape: int) -> Any:
    return keras.ops.zeros(shape)


def built(kind: type, *arguments: Any, shape: tuple = (None, 8, 9, 3), **options: Any) -> Any:
    layer = kind(*arguments, **options)
    layer.build(shape)
    return layer


def model_of(*chain: Any, size: tuple = (8, 9, 3)) -> Any:
    return keras.Sequential([keras.Input(size), *chain])


def counted() -> Any:
    return model_of(keras.layers.Conv2D(4, 3))


def low_rank(**options: Any) -> Any:
    return layers.LowRankLocallyConnected2D(4, 3, spatial_rank=2, **options)


def keras_2_file() -> Path:
    """Writes a model as Keras 2 did, in the current folder."""
    import h5py

    dense = {"name": "dense", "units": 2, "activation": "linear", "use_bias": False}
    input_layer = {"name": "input", "batch_input_shape": [None, 5], "dtype": "float32"}
    chain = [("InputLayer", input_layer), ("Dense", dense)]
    stack = [{"class_name": name, "config": config} for name, config in chain]
    config = {"class_name": "Sequential", "config": {"name": "model", "layers": stack}}
    with h5py.File("model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = ["dense"]
        weights.create_group("dense").attrs["weight_names"] = ["kernel"]
        weights["dense"]["kernel"] = np.ones((5, 2), "float32")
    return Path("model.h5")


# Methods of layers that take something, by the layer's name.
METHODS: dict[str, Any] = {
    "CondConv2D.call": lambda: (
        built(layers.CondConv2D, 4, 3, 2),
        {"inputs": zeros(5, 8, 9, 3), "routing_weights": zeros(5, 2)},
    ),
    "DynamicLocalFilter2D.call": lambda: (
        built(layers.DynamicLocalFilter2D, 3),
        {"inputs": zeros(5, 8, 9, 3), "filters": zeros(5, 8, 9, 9)},
    ),
    "CondConv2D.routing_weights": lambda: (
        built(layers.CondConv2D, 4, 3, 2).routing_weights,
        {"inputs": zeros(5, 8, 9, 3)},
    ),
    "DeformableConv2D.offsets_and_mask": lambda: (
        built(layers.DeformableConv2D, 4, 3).offsets_and_mask,
        {"x": zeros(5, 8, 9, 3)},
    ),
    "DeformableScaleConv2D.offsets": lambda: (
        built(layers.DeformableScaleConv2D, 4, 3, shape=(None, 2, 8, 9, 3)).offsets,
        {"inputs": zeros(5, 2, 8, 9, 3)},
    ),
    "LowRankLocallyConnected2D.combining_weights": lambda: (
        built(layers.LowRankLocallyConnected2D, 4, 3, 2, input_dependent=True).combining_weights,
        {"inputs": zeros(5, 8, 9, 3)},
    ),
    "SpatialTransformer2D.transformations": lambda: (
        built(layers.SpatialTransformer2D, keras.layers.GlobalAveragePooling2D()).transformations,
        {"inputs": zeros(5, 8, 9, 3)},
    ),
    "ScaleConv2D.dilations": lambda: (layers.ScaleConv2D(4, 3).dilations, {"num_scales": 3}),
    "KroneckerConv2D.from_conv2d": lambda: (
        layers.KroneckerConv2D.from_conv2d,
        {
            "conv": built(keras.layers.Conv2D, 4, 3),
            "factors": ((3, 3, 1, 2), (1, 1, 3, 2)),
            "rank": 2,
            "strategy": "auto",
        },
    ),
    "KroneckerConv2D.approximation_error": lambda: (
        layers.KroneckerConv2D.approximation_error,
        {
            "conv": built(keras.layers.Conv2D, 4, 3),
            "factors": ((3, 3, 1, 2), (1, 1, 3, 2)),
            "rank": 2,
        },
    ),
    "KroneckerConv2D.asked": lambda: (
        layers.KroneckerConv2D(4, 3, ((3, 3, 1, 2), (1, 1, 3, 2))).asked,
        {"sizes": (8, 9)},
    ),
    "LowRankLocallyConnected2D.asked": lambda: (
        built(layers.LowRankLocallyConnected2D, 4, 3, 2).asked,
        {"shape": (2, 8, 9, 3), "training": True},
    ),
    "KroneckerConv2D.chosen_strategy": lambda: (
        layers.KroneckerConv2D(4, 3, ((3, 3, 1, 2), (1, 1, 3, 2))).chosen_strategy,
        {"sizes": (8, 9)},
    ),
}
WINDOWS = {"windows": ops.Windows((3, 2), (1, 1), (1, 1), "valid")}
TRANSPOSED = {"windows": ops.TransposedWindows((3, 2), (2, 1), (1, 1), "same")}
FACTORS = ((3, 1, 2, 2), (1, 2, 3, 5))
IMAGES = np.random.default_rng(0).normal(size=(4, 8, 9, 3)).astype("float32")
SCORES = {"model": lambda x: np.asarray(x).mean((1, 2)), "images": IMAGES}
MEASURED = {
    "model": np.square,
    "kind": "equivariance",
    "layer": None,
    "margin": 0,
    "act_on_outputs": None,
    "batch_size": 4,
    "strides": (1, 1),
    "data_format": "channels_last",
    "progress": False,
}
SHIFTED = {"batch_size": 4, "wrap": False, "fill": 0.0, "data_format": None, "progress": False}
PICTURE = {"path": "picture.png", "title": "", "y_label": "error", "x_label": "shift"}
ASKED = {**WINDOWS, "shape": (2, 8, 9, 6), "filters": 10, "rank": 2, "training": False}
ASKED |= {"backend": "jax", "device": "gpu", "itemsize": 4, "groups": 2}
FUNCTIONS: dict[Any, Any] = {
    moved.Request: lambda: {
        "batch": 2,
        "positions": 9,
        "reads": 9,
        "filters": 4,
        "rank": 3,
        "slabs": 1,
        "training": False,
        "itemsize": 4,
    },
    moved.choose_plan: lambda: {
        "request": moved.Request(2, 9, 9, 4, 3, 1),
        "backend": "jax",
    },
    moved.choose_strategy: lambda: {
        "factors": FACTORS,
        "rank": 2,
        "strides": (1, 2),
        "output_sizes": (8, 9),
        "backend": "jax",
    },
    plans.choose: lambda: {
        "plans": plans.LOW_RANK,
        "request": plans.LowRankRequest(**ASKED),
        "limit": 10**6,
        "name": "auto",
    },
    plans.estimated_cost: lambda: {
        "plans": plans.CONDITIONAL,
        "request": plans.Request(**ASKED),
    },
    plans.KroneckerRequest: lambda: {**ASKED, "factors": FACTORS},
    plans.LowRankRequest: lambda: {
        **ASKED,
        "mixing": "shared",
        "bank_windows": [WINDOWS["windows"]] * 2,
        "fixed_sizes": True,
    },
    plans.LowRankTransposeRequest: lambda: {
        **ASKED,
        "written": TRANSPOSED["windows"],
        "mixing": "shared",
        "fixed_sizes": True,
    },
    plans.multiply_adds: lambda: {
        "factors": FACTORS,
        "rank": 2,
        "strides": (1, 2),
        "output_sizes": (8, 9),
    },
    plans.names_of: lambda: {"plans": plans.KRONECKER},
    plans.Plan: lambda: {
        "name": "once",
        "allowed": bool,
        "terms": dict,
        "memory": int,
        "apply": max,
        "work": dict,
        "measured_as": "twice",
    },
    plans.present_machine: dict,
    plans.Request: lambda: dict(ASKED),
    plans.Work: lambda: {"bytes": 10.0, "flops": 3},
    ops.combine_banks: lambda: {"kernel_Tcg": zeros(3, 2, 4, 12), "weights_Ok": zeros(6, 7, 3)},
    ops.combine_then_convolve: lambda: {
        "inputs_bSc": zeros(5, 8, 9, 4),
        "kernel_Tcg": zeros(3, 2, 4, 12),
        "weights_Ok": zeros(6, 8, 3),
        **WINDOWS,
        "groups": 1,
    },
    ops.convolve_then_combine: lambda: {
        "inputs_bSc": zeros(5, 8, 9, 4),
        "kernel_Tcg": zeros(3, 2, 4, 12),
        "weights_bOk": zeros(1, 6, 8, 3),
        **WINDOWS,
        "one_by_one": False,
        "groups": 1,
    },
    ops.convolve_then_combine_mixed: lambda: {
        "inputs_bSc": zeros(5, 8, 9, 4),
        "kernels_Tcf": [zeros(3, 2, 4, 7)] * 3,
        "weights_bOk": zeros(1, 6, 8, 3),
        "windows": [WINDOWS["windows"]] * 3,
        "one_by_one": True,
        "groups": 1,
    },
    ops.deform_conv2d: lambda: {
        "x": zeros(5, 8, 9, 4),
        "kernel": zeros(3, 2, 4, 7),
        "offset": zeros(5, 6, 8, 24),
        "mask": zeros(5, 6, 8, 12),
        "strides": 1,
        "padding": "valid",
        "dilation_rate": 1,
        "offset_groups": 2,
        "data_format": "channels_last",
    },
    ops.deformable_scale_correlation: lambda: {
        "levels_bhwc": [zeros(5, 8, 9, 4)] * 2,
        "kernel_lijcf": zeros(2, 3, 1, 4, 7),
        "offsets_bhwo": [zeros(5, 8, 9, 6)] * 2,
        "dilations": [1, 2],
        "strides": (1, 1),
        "offset_groups": 1,
    },
    ops.discrete_gaussian: lambda: {"variance": 2.5},
    ops.embed_banks: lambda: {
        "kernels_Tcf": [zeros(3, 2, 4, 7)] * 2,
        "windows": [WINDOWS["windows"]] * 2,
        "shape": (8, 9),
    },
    ops.expand_kernel: lambda: {"kernel_hwscf": zeros(3, 3, 4, 2, 5), "order": 4},
    ops.kronecker_convolution: lambda: {
        "inputs_bhwx": zeros(5, 8, 9, 6),
        "coarse_rijce": zeros(2, 3, 1, 2, 2),
        "fine_rkldf": zeros(2, 1, 2, 3, 5),
        "strides": (1, 2),
        "pads": ((1, 0), (0, 2)),
    },
    ops.kronecker_kernel: lambda: {
        "coarse_rijce": zeros(2, 3, 1, 2, 2),
        "fine_rkldf": zeros(2, 1, 2, 3, 5),
    },
    ops.level_variances: lambda: {"num_levels": 4, "base": 2, "zero_scale": 0.5},
    ops.local_convolution: lambda: {
        "inputs_bSc": zeros(5, 8, 9, 4),
        "kernel_prf": zeros(48, 24, 7),
        **WINDOWS,
        "training": False,
        "groups": 1,
    },
    ops.local_convolution_transpose: lambda: {
        "inputs_bSc": zeros(5, 8, 9, 4),
        "kernel_prc": zeros(72, 42, 4),
        **TRANSPOSED,
        "training": False,
    },
    ops.combine_then_spread: lambda: {
        "inputs_bSc": zeros(5, 8, 9, 4),
        "kernel_Tfh": zeros(3, 2, 7, 12),
        "weights_Sk": zeros(8, 9, 3),
        **TRANSPOSED,
    },
    ops.weigh_then_convolve: lambda: {
        "inputs_bSc": zeros(5, 8, 9, 4),
        "kernel_Tfh": zeros(3, 2, 7, 12),
        "weights_bSk": zeros(1, 8, 9, 3),
        **TRANSPOSED,
    },
    ops.merge_cascade: lambda: {
        "kernels": [zeros(3, 2, 4, 5), zeros(1, 3, 5, 6)],
        "dilations": [(1, 1), (2, 3)],
    },
    ops.nearest_kronecker_factors: lambda: {
        "kernel": np.ones((3, 2, 6, 10)),
        "factors": FACTORS,
        "rank": 2,
    },
    ops.normalize_logits: lambda: {"logits_Ok": zeros(8, 9, 3), "normalization": "softmax"},
    ops.rearrange_kernel: lambda: {"kernel": np.ones((3, 2, 6, 10)), "factors": FACTORS},
    ops.resize_aligned: lambda: {"inputs": zeros(5, 8, 9, 4), "output_shape": (3, 7)},
    ops.rotation_matrix: lambda: {"kernel_size": 3, "degrees": 45.0},
    ops.sample_affine: lambda: {
        "images_bhwc": zeros(5, 8, 9, 4),
        "maps_bmn": zeros(5, 2, 3),
        "output_size": (6, 7),
        "align_corners": True,
    },
    ops.sample_bilinear: lambda: {
        "images_bhwc": zeros(5, 8, 9, 4),
        "rows_bp": zeros(5, 6),
        "columns_bp": zeros(5, 6),
    },
    ops.scale_correlation: lambda: {
        "levels_bhwc": [zeros(5, 8, 9, 4)] * 2,
        "kernel_lijcf": zeros(2, 3, 1, 4, 7),
        "dilations": [1, 2],
        "strides": (1, 2),
    },
    ops.sum_over_axes: lambda: {
        "parts": [zeros(8, 3), zeros(9, 3)],
        "axes": (0, 1),
        "dimensions": 2,
    },
    ops.TransposedWindows: lambda: {
        "sizes": (3, 2),
        "strides": (3, 2),
        "dilations": (1, 1),
        "padding": "same",
        "output_padding": (1, 0),
    },
    ops.Windows: lambda: {
        "sizes": (3, 2),
        "strides": (1, 1),
        "dilations": (1, 2),
        "padding": "same",
    },
    conversion.convert: lambda: {"model": model_of(low_rank()), "rule": conversion.for_serving},
    conversion.fold_batch_normalization: lambda: {
        "model": model_of(keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()),
    },
    conversion.for_serving: lambda: {"layer": built(layers.LowRankLocallyConnected2D, 4, 3, 2)},
    conversion.from_convolution: lambda: {
        "layer": built(keras.layers.Conv2D, 4, 3),
        "spatial_rank": 2,
        "input_shape": (None, 8, 9, 3),
        "spread": 0.1,
        "additive_axes": (0, 1),
        "seed": 0,
    },
    conversion.relaxing: lambda: {
        "spatial_rank": 2,
        "spread": 0.1,
        "additive_axes": (0,),
        "seed": 0,
    },
    conversion.merge_cascade: lambda: {
        "layers": [built(keras.layers.Conv2D, 3, 3), built(keras.layers.Conv2D, 3, 3)],
    },
    conversion.resize: lambda: {
        "layer": built(layers.LowRankLocallyConnected2D, 4, 3, 2),
        "input_shape": (None, 6, 7, 3),
    },
    conversion.spatial_spectrum: lambda: {"layer": built(layers.LocallyConnected2D, 4, 3)},
    conversion.to_locally_connected: lambda: {
        "layer": built(layers.LowRankLocallyConnected2D, 4, 3, 2),
    },
    conversion.to_low_rank: lambda: {
        "layer": built(layers.LocallyConnected2D, 4, 3),
        "spatial_rank": 2,
    },
    conversion.to_plain_convolutions: lambda: {
        "model": model_of(layers.GroupLiftConv2D(4, 3), layers.GroupPooling2D()),
    },
    conversion.truncation_error: lambda: {
        "layer": built(layers.LocallyConnected2D, 4, 3),
        "spatial_rank": 2,
    },
    equivariance.accuracy_under_shifts: lambda: {
        **SCORES,
        **SHIFTED,
        "labels": np.array([0, 1, 2, 1]),
        "shifts": [(0, 1), (2, 0)],
    },
    equivariance.shift_consistency: lambda: {
        **SCORES,
        **SHIFTED,
        "max_shift": 2,
        "shifts": None,
        "seed": 0,
        "pairs": 1,
    },
    equivariance.error: lambda: {
        **MEASURED,
        "images": IMAGES,
        "transform": equivariance.Shift(1),
    },
    equivariance.curve: lambda: {
        **MEASURED,
        "images": IMAGES,
        "transforms": [equivariance.Shift(1)],
        "values": [1.0],
    },
    equivariance.location_probe: lambda: {
        "model": np.square,
        "images": None,
        "image_shape": (6, 5, 2),
        "layer": None,
        "examples": 4,
        "ridge": 0.1,
        "seed": 0,
        "batch_size": 4,
        "data_format": "channels_last",
        "progress": False,
    },
    equivariance.Curve: lambda: {"values": np.zeros(2), "per_example": np.zeros((2, 4))},
    equivariance.GroupRotation: lambda: {
        "degrees": 90,
        "interpolation": "bilinear",
        "fill": 0.0,
        "order": 4,
    },
    equivariance.Rotation: lambda: {"degrees": 90, "interpolation": "bilinear", "fill": 0.0},
    equivariance.Scale: lambda: {"factor": 2.0, "interpolation": "bicubic", "fill": 0.0},
    equivariance.Shift: lambda: {"rows": 1, "columns": 0, "wrap": False, "fill": 0.0},
    equivariance.ScaleSpaceAction: lambda: {
        "base": 2,
        "steps": 1,
        "zero_scale": 0.5,
        "reach": 0,
        "margin": 0,
        "levels": None,
        "data_format": None,
    },
    inspection.layer_costs: lambda: {"model": counted()},
    inspection.total_cost: lambda: {"model": counted()},
    inspection.weight_bytes: lambda: {"model": counted(), "moments": 2},
    inspection.step_bytes: lambda: {"model": counted()},
    inspection.operations: lambda: {
        "layer": counted().layers[-1],
        "input_shape": (None, 8, 9, 3),
    },
    inspection.receptive_field: lambda: {
        "model": model_of(keras.layers.Conv2D(4, 3, name="conv")),
        "output": "conv",
        "rules": {},
    },
    regularizers.SpatialSmoothness: lambda: {"strength": 0.5, "p": 1},
    initializers.IdentityConv: lambda: {"stddev": 0.01, "groups": 2, "seed": 1},
    plots.combining_weight_maps: lambda: {
        "model": model_of(low_rank(input_dependent=True)),
        "path": "picture.png",
        "images": IMAGES[:1],
    },
    plots.spatial_spectra: lambda: {"model": model_of(low_rank()), "path": "picture.png"},
    plots.lines_with_errors: lambda: {
        **PICTURE,
        "curves": {"a": [(1, 2.0, 0.1), (2, 3.0, 0.1)]},
        "levels": {"b": 2.0},
        "log_y": False,
        "log_x": True,
    },
    plots.equivariance_curves: lambda: {
        **PICTURE,
        "curves": {"a": equivariance.Curve(np.arange(2.0), np.ones((2, 4)))},
        "log_y": False,
    },
    plots.bars_with_errors: lambda: {
        "path": "picture.png",
        "title": "",
        "y_label": "accuracy",
        "groups": {"a": {"b": (0.5, 0.1)}},
    },
    legacy.load_model: lambda: {"path": keras_2_file(), "custom_objects": {}},
    legacy.load_weights: lambda: {
        "model": model_of(keras.layers.Dense(2, use_bias=False, name="dense"), size=(5,)),
        "path": keras_2_file(),
    },
    export.export_model: lambda: {
        "model": keras.Model(images := keras.Input((8, 9, 3)), low_rank()(images)),
        "path": "served",
        "formats": (),
        "convert": True,
        "sample": IMAGES,
        "serving_batch_size": 1,
        "preprocess": None,
        "class_names": None,
        "tolerance": 1e-4,
    },
}
# Drawing takes a tenth of a second.
SLOW = {function for function in FUNCTIONS if function.__module__.endswith("plots")}
# Arguments that are functions, or may be.
FUNCTION_LIKE = {
    "model",
    "report",
    "rule",
    "transform",
    "transforms",
    "act_on_outputs",
    "preprocess",
}
# What functions return; they make it themselves.
RESULTS = {
    conversion.ConversionReport,
    equivariance.LocationProbe,
    plans.Machine,
    inspection.LayerCost,
    inspection.ReceptiveField,
}
EXEMPT = {*RESULTS, equivariance.Transform}


@pytest.mark.parametrize("every", EXTENT)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: f"{one.__module__}.{one.__name__}")
def test_a_function_takes_an_odd_argument_or_says_why_not(function, every, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = FUNCTIONS[function]()
    function(**given)
    found = []
    for argument, annotation in parameters(function).items():
        for label, value in chosen(every and function not in SLOW, argument):
            if argument in FUNCTION_LIKE and label in CALLED:
                continue
            taken: list[bool] = []
            act = functools.partial(call, function, taken)
            wrong = complaint(act, given, argument, value, None, label) or (
                unfit(annotation, label) if taken else None
            )
            found += [f"{argument}={label}: {wrong}"] if wrong else []
    assert not found, "\n".join(found)


def call(function: Any, taken: list, **arguments: Any) -> None:
    function(**arguments)
    taken.append(True)


@pytest.mark.parametrize("every", EXTENT)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_an_odd_argument_or_says_why_not(name, every):
    method, given = METHODS[name]()
    method(**given)
    found = []
    for argument in given:
        if isinstance(method, keras.Layer) and argument == "inputs":
            continue  # Keras checks what a layer is called with
        for label, value in chosen(every, argument):
            # What a layer is called with Keras makes tensors of first.
            wrong = complaint(method, given, argument, value, identity_does, label)
            found += [f"{argument}={label}: {wrong}"] if wrong else []
    assert not found, "\n".join(found)


def identity_does(name: str, value: Any) -> None:
    if name in ("routing_weights", "filters"):
        keras.layers.Identity()(value)


def test_every_public_callable_has_its_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(public(layers)) == {getattr(layers, name) for name in {*LAYERS, *WRAPPERS}}
    modules = (ops, plans, moved, conversion, equivariance, inspection, plots)
    modules += (regularizers, initializers)
    everything = {one for module in (*modules, legacy, export) for one in public(module)}
    assert everything - EXEMPT == set(FUNCTIONS)
    for function, row in FUNCTIONS.items():
        assert set(row()) <= set(parameters(function)), function


def public(module: Any) -> list[Any]:
    """Returns the functions and classes that a module offers of its own, or that a folder does."""
    folder = module.__file__.endswith("__init__.py")
    return [
        one
        for name, one in vars(module).items()
        if (inspect.isfunction(one) or inspect.isclass(one))
        and one.__module__.startswith("low_rank_local_connectivity")
        and not name.startswith("_")
        and (folder or one.__module__ == module.__name__)
    ]
