"""The table of layers that every contract test runs over: a row buys a layer the whole suite."""

import dataclasses
import re
from typing import Any

import keras

from low_rank_local_connectivity import SpatialSmoothness, layers


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer with arguments of which none is a default that hides something.

    Args:
        layer: Name of a public layer.
        arguments: Arguments of its constructor.
        input_shape: Input shape with batch; no two axes have the same length.
        label: What is special about it.
    """

    layer: str
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]
    label: str = ""

    def make(self, **changes: Any):
        """Creates the layer."""
        return getattr(layers, self.layer)(**{**self.arguments, **changes})

    def __str__(self) -> str:
        return f"{self.layer}-{self.label}" if self.label else self.layer


LC = {"filters": 6, "kernel_size": 3}
LRLC = {"filters": 6, "kernel_size": 3, "spatial_rank": 5}
FULL = {
    "padding": "same",
    "activation": "tanh",
    "kernel_initializer": "he_normal",
    "bias_initializer": "random_normal",
    "kernel_regularizer": "l2",
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "kernel_constraint": "max_norm",
    "bias_constraint": "max_norm",
}
LOW_RANK_FULL = {
    **FULL,
    "normalize_weights": "norm",
    "combining_weights_initializer": "glorot_uniform",
    "combining_weights_regularizer": "l1",
    "combining_weights_constraint": "max_norm",
    "spatial_bias_regularizer": "l2",
    "spatial_bias_constraint": "max_norm",
}


def as_depthwise(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names that they have in depthwise layers."""
    return {re.sub("^kernel_", "depthwise_", name): one for name, one in arguments.items()}


def localization() -> dict[str, Any]:
    """Configuration of a network that finds five features in an image; each layer makes its own."""
    steps = [
        keras.Input((8, 11, 4)),
        keras.layers.Conv2D(5, (3, 2), activation="tanh"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.saving.serialize_keras_object(keras.Sequential(steps))


CASES = [
    Case("LocallyConnected1D", LC, (2, 13, 4)),
    Case(
        "LocallyConnected1D", {**LC, "padding": "causal", "dilation_rate": 2}, (2, 13, 4), "causal"
    ),
    Case("LocallyConnected2D", LC, (2, 8, 11, 4)),
    Case(
        "LocallyConnected2D",
        {
            **LC,
            **FULL,
            "kernel_size": (3, 2),
            "strides": (1, 2),
            "fan": "kernel",
            "implementation": 2,
        },
        (2, 8, 11, 4),
        "full",
    ),
    Case(
        "LocallyConnected2D",
        {
            **LC,
            "data_format": "channels_first",
            "strides": (2, 1),
            "dilation_rate": (2, 1),
            "padding": ((1, 2), (0, 3)),
        },
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "LocallyConnected2D",
        {**LC, "groups": 2, "data_format": "channels_first", "padding": "same"},
        (2, 4, 8, 11),
        "groups",
    ),
    Case("LocallyConnected3D", {**LC, "kernel_size": (2, 1, 3)}, (2, 5, 7, 6, 3)),
    Case("LocallyConnected1DTranspose", LC, (2, 13, 4)),
    Case("LocallyConnected2DTranspose", {**LC, "strides": 2}, (2, 4, 5, 3)),
    Case(
        "LocallyConnected2DTranspose",
        {**LC, **FULL, "kernel_size": (3, 2), "strides": (1, 3), "output_padding": (0, 1)},
        (2, 4, 5, 3),
        "full",
    ),
    Case(
        "LocallyConnected2DTranspose",
        {**LC, "data_format": "channels_first", "dilation_rate": (2, 1)},
        (2, 3, 4, 5),
        "channels_first",
    ),
    Case("LocallyConnected3DTranspose", {**LC, "kernel_size": (2, 1, 3)}, (2, 3, 4, 5, 7)),
    Case(
        "LocallyConnected3D",
        {**LC, "kernel_size": (2, 1, 3), "groups": 3, "strides": (1, 2, 1)},
        (2, 5, 7, 6, 3),
        "groups-of-one",
    ),
    Case("LowRankLocallyConnected1D", LRLC, (2, 13, 4)),
    Case("LowRankLocallyConnected1D", {**LRLC, "padding": "causal"}, (2, 13, 4), "causal"),
    Case("LowRankLocallyConnected2D", LRLC, (2, 8, 11, 4)),
    Case(
        "LowRankLocallyConnected2D",
        {**LRLC, **LOW_RANK_FULL, "kernel_size": (3, 2), "strides": (2, 1)},
        (2, 8, 11, 4),
        "full",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {
            **LRLC,
            "additive_axes": (),
            "use_spatial_bias": "per_filter",
            "normalize_weights": None,
            "data_format": "channels_first",
            "implementation": "convolve_then_combine",
            "preserve_variance": True,
            "padding": "replicate",
            "strides": (3, 1),
            "dilation_rate": 2,
        },
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {
            **LRLC,
            "additive_axes": (1,),
            "implementation": "combine_then_convolve",
            "padding": "circular",
        },
        (2, 8, 11, 4),
        "columns",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {
            **LRLC,
            "spatial_rank": 3,
            "kernel_size": [1, 3, (5, 2)],
            "dilation_rate": [2, 1, 1],
            "padding": "same",
        },
        (2, 8, 11, 4),
        "mixed",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {**LRLC, "spatial_rank": 2, "kernel_size": [3, 5], "padding": "same"},
        (2, 8, 11, 4),
        "mixed-of-as-many-as-axes",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {**LRLC, "groups": 2, "use_spatial_bias": "per_filter", "preserve_variance": True},
        (2, 8, 11, 4),
        "groups",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {
            **LRLC,
            "groups": 2,
            "input_dependent": True,
            "data_format": "channels_first",
            "kernel_size": [1, (3, 2), 3, 2, 5],
            "padding": "same",
        },
        (2, 4, 8, 11),
        "groups-mixed-input",
    ),
    Case("LowRankLocallyConnected2D", {**LRLC, "input_dependent": True}, (2, 8, 11, 4), "input"),
    Case(
        "LowRankLocallyConnected2D",
        {**LRLC, "input_dependent": True, "data_format": "channels_first", "strides": 2},
        (2, 4, 8, 11),
        "input-channels_first",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {**LRLC, "spatial_rank": 1, "filters": 6},
        (2, 8, 11, 4),
        "rank-1",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {
            **LRLC,
            "combining_weights_regularizer": SpatialSmoothness(0.3, 2),
            "combining_weights_initializer": "random_normal",
        },
        (2, 8, 11, 4),
        "smooth",
    ),
    Case(
        "LowRankLocallyConnected2D",
        {
            **LRLC,
            "combining_weights_regularizer": SpatialSmoothness(0.3),
            "input_dependent": True,
        },
        (2, 8, 11, 4),
        "smooth-input",
    ),
    Case(
        "LowRankLocallyConnected3D",
        {**LRLC, "kernel_size": (2, 1, 3), "additive_axes": (0, 2)},
        (2, 5, 7, 6, 3),
    ),
    Case("LowRankLocallyConnected1DTranspose", {**LRLC, "spatial_rank": 3}, (2, 13, 4)),
    Case("LowRankLocallyConnected2DTranspose", {**LRLC, "strides": 2}, (2, 4, 7, 3)),
    Case(
        "LowRankLocallyConnected2DTranspose",
        {
            **LRLC,
            **LOW_RANK_FULL,
            "kernel_size": (3, 2),
            "strides": (1, 3),
            "output_padding": (0, 1),
            "implementation": "combine_then_spread",
        },
        (2, 4, 7, 3),
        "full",
    ),
    Case(
        "LowRankLocallyConnected2DTranspose",
        {
            **LRLC,
            "additive_axes": (),
            "use_spatial_bias": "per_filter",
            "normalize_weights": None,
            "data_format": "channels_first",
            "dilation_rate": (2, 1),
            "implementation": "weigh_then_convolve",
            "preserve_variance": True,
        },
        (2, 3, 4, 7),
        "channels_first",
    ),
    Case(
        "LowRankLocallyConnected2DTranspose",
        {
            **LRLC,
            "combining_weights_regularizer": SpatialSmoothness(0.3),
            "input_dependent": True,
            "strides": 2,
        },
        (2, 4, 7, 3),
        "input",
    ),
    Case(
        "LowRankLocallyConnected3DTranspose",
        {**LRLC, "spatial_rank": 8, "kernel_size": (2, 1, 3), "additive_axes": (0, 2)},
        (2, 3, 4, 5, 7),
    ),
    Case(
        "LowRankLocallyConnected3D",
        {
            **LRLC,
            "kernel_size": (2, 1, 3),
            "groups": 3,
            "implementation": "combine_then_convolve",
        },
        (2, 5, 7, 6, 3),
        "groups-of-one",
    ),
    Case("DepthwiseLocallyConnected1D", {"kernel_size": 3}, (2, 13, 4)),
    Case("DepthwiseLocallyConnected2D", {"kernel_size": 3}, (2, 8, 11, 4)),
    Case(
        "DepthwiseLocallyConnected2D",
        {
            **as_depthwise(FULL),
            "kernel_size": (3, 2),
            "strides": (2, 1),
            "depth_multiplier": 3,
            "data_format": "channels_first",
            "fan": "kernel",
        },
        (2, 4, 8, 11),
        "full",
    ),
    Case("DepthwiseLowRankLocallyConnected1D", {"kernel_size": 3, "spatial_rank": 5}, (2, 13, 4)),
    Case(
        "DepthwiseLowRankLocallyConnected2D", {"kernel_size": 3, "spatial_rank": 5}, (2, 8, 11, 4)
    ),
    Case(
        "DepthwiseLowRankLocallyConnected2D",
        {
            **as_depthwise(LOW_RANK_FULL),
            "kernel_size": (3, 2),
            "spatial_rank": 5,
            "strides": (2, 1),
            "depth_multiplier": 3,
            "data_format": "channels_first",
            "use_spatial_bias": "per_filter",
            "implementation": "combine_then_convolve",
        },
        (2, 4, 8, 11),
        "full",
    ),
    Case(
        "DepthwiseLowRankLocallyConnected2D",
        {
            "kernel_size": [3, (5, 2)],
            "spatial_rank": 2,
            "padding": "same",
            "depth_multiplier": 3,
            "input_dependent": True,
        },
        (2, 8, 11, 4),
        "mixed-input",
    ),
    Case(
        "SeparableLowRankLocallyConnected1D",
        {"filters": 6, "kernel_size": 3, "spatial_rank": 5, "padding": "causal"},
        (2, 13, 4),
    ),
    Case(
        "SeparableLowRankLocallyConnected2D",
        {"filters": 6, "kernel_size": 3, "spatial_rank": 5},
        (2, 8, 11, 4),
    ),
    Case(
        "SeparableLowRankLocallyConnected2D",
        {
            **as_depthwise(LOW_RANK_FULL),
            "filters": 6,
            "kernel_size": (3, 2),
            "spatial_rank": 5,
            "depth_multiplier": 3,
            "data_format": "channels_first",
            "use_spatial_bias": "per_filter",
            "pointwise_initializer": "he_normal",
            "pointwise_regularizer": "l2",
            "pointwise_constraint": "max_norm",
        },
        (2, 4, 8, 11),
        "full",
    ),
    Case("InputDependentCombiningWeights", {"spatial_rank": 5}, (2, 13, 4), "1D"),
    Case(
        "InputDependentCombiningWeights",
        {"spatial_rank": 5, "output_size": (3, 13), "dilation_rates": (1, 3)},
        (2, 8, 11, 4),
        "2D",
    ),
    Case(
        "InputDependentCombiningWeights",
        {"spatial_rank": 5, "output_size": 9, "data_format": "channels_first"},
        (2, 3, 5, 7, 6),
        "3D",
    ),
    Case("SpatialBias", {}, (2, 8, 11, 4), "2D"),
    Case("SpatialBias", {"additive_axes": (0,)}, (2, 13, 4), "1D"),
    Case("SpatialBias", {"additive_axes": ()}, (2, 5, 7, 6, 3), "3D-map"),
    Case(
        "SpatialBias",
        {
            "per_filter": True,
            "data_format": "channels_first",
            "bias_initializer": "random_normal",
            "bias_regularizer": "l2",
            "bias_constraint": "max_norm",
        },
        (2, 4, 8, 11),
        "per_filter",
    ),
    Case("AddCoordinates2D", {}, (2, 8, 11, 4)),
    Case(
        "AddCoordinates2D",
        {"with_radius": True, "data_format": "channels_first"},
        (2, 4, 8, 11),
        "radius",
    ),
    Case("AddCoordinates1D", {"with_radius": True}, (2, 13, 4)),
    Case("AddCoordinates3D", {"coordinate_order": "column_first"}, (2, 5, 7, 6, 3)),
    Case("CoordConv1D", {"filters": 6, "kernel_size": 3, "padding": "causal"}, (2, 13, 4)),
    Case("CoordConv2D", {"filters": 6, "kernel_size": 3}, (2, 8, 11, 4)),
    Case(
        "CoordConv2D",
        {
            "filters": 6,
            "kernel_size": (3, 2),
            "with_radius": True,
            "coordinate_order": "column_first",
            "padding": "circular",
            "activation": "relu",
            "kernel_regularizer": "l2",
            "activity_regularizer": "l2",
        },
        (2, 8, 11, 4),
        "full",
    ),
    Case(
        "CoordConv2DTranspose",
        {"filters": 6, "kernel_size": (3, 2), "strides": (1, 2), "padding": "same"},
        (2, 8, 11, 4),
    ),
    Case(
        "CoordConv3D",
        {
            "filters": 6,
            "kernel_size": (2, 1, 3),
            "padding": ((1, 2), (0, 0), (0, 1)),
            "data_format": "channels_first",
        },
        (2, 3, 5, 7, 6),
    ),
    Case("CondConv2D", {"filters": 6, "kernel_size": 3, "num_experts": 5}, (2, 8, 11, 4)),
    Case(
        "CondConv2D",
        {
            **FULL,
            "filters": 6,
            "kernel_size": (3, 2),
            "num_experts": 5,
            "strides": (2, 1),
            "routing": "softmax",
        },
        (3, 8, 11, 4),
        "full",
    ),
    Case(
        "CondConv2D",
        {
            "filters": 6,
            "kernel_size": (1, 3),
            "num_experts": 2,
            "strides": (3, 1),
            "dilation_rate": (1, 2),
            "padding": "reflect",
            "data_format": "channels_first",
            "use_bias": False,
        },
        (3, 4, 8, 11),
        "channels_first",
    ),
    Case("DeformableConv2D", {"filters": 6, "kernel_size": 3}, (2, 8, 11, 4)),
    Case(
        "DeformableConv2D",
        {
            **FULL,
            "filters": 6,
            "kernel_size": (3, 2),
            "strides": (2, 1),
            "offset_groups": 2,
            "mask_scale": 1.5,
            "offset_lr_multiplier": 0.1,
        },
        (2, 8, 11, 4),
        "full",
    ),
    Case(
        "DeformableConv2D",
        {
            "filters": 6,
            "kernel_size": (2, 3),
            "strides": (1, 3),
            "dilation_rate": (2, 1),
            "padding": "circular",
            "modulated": False,
            "use_bias": False,
            "data_format": "channels_first",
        },
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "DeformableConv2D",
        {
            "filters": 6,
            "kernel_size": (3, 2),
            "strides": (2, 1),
            "dilation_rate": (1, 2),
            "padding": "same",
            "groups": 2,
        },
        (2, 8, 11, 4),
        "groups",
    ),
    Case("DeformableScaleConv2D", {"filters": 6, "kernel_size": 3}, (2, 3, 8, 11, 4)),
    Case(
        "DeformableScaleConv2D",
        {
            "filters": 6,
            "kernel_size": (3, 2),
            "interaction": 2,
            "strides": (2, 1),
            "rounding": "floor",
            "offset_groups": 2,
            "scale_offsets": False,
            "offset_lr_multiplier": 0.1,
            **{name: value for name, value in FULL.items() if name != "padding"},
        },
        (2, 3, 8, 11, 4),
        "full",
    ),
    Case(
        "DeformableScaleConv2D",
        {
            "filters": 6,
            "kernel_size": (1, 3),
            "interaction": 2,
            "base": 3,
            "data_format": "channels_first",
            "output_scales": 3,
            "use_bias": False,
        },
        (2, 4, 3, 8, 11),
        "channels_first",
    ),
    Case("DynamicLocalFilter2D", {"kernel_size": 3}, (2, 8, 11, 4)),
    Case(
        "DynamicLocalFilter2D",
        {
            "kernel_size": (3, 2),
            "normalize": None,
            "per_channel": True,
            "dilation_rate": (2, 1),
            "padding": "reflect",
            "data_format": "channels_first",
            "kernel_initializer": "he_normal",
            "bias_initializer": "random_normal",
            "kernel_regularizer": "l2",
            "bias_regularizer": "l1",
            "kernel_constraint": "max_norm",
            "bias_constraint": "max_norm",
        },
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "DynamicLocalFilter2D",
        {
            "kernel_size": (1, 5),
            "per_channel": True,
            "generator_kernel_size": (3, 1),
            "use_bias": False,
        },
        (2, 8, 11, 4),
        "generator",
    ),
    Case("DilatedContext2D", {"dilations": (1, 2, 3)}, (2, 8, 11, 4)),
    Case(
        "DilatedContext2D",
        {
            "channels": 6,
            "dilations": (2, 1),
            "kernel_size": (3, 2),
            "padding": "valid",
            "multipliers": (1, 2),
            "data_format": "channels_first",
            "kernel_initializer": "he_normal",
            "bias_initializer": "random_normal",
            "kernel_regularizer": "l2",
            "bias_regularizer": "l1",
            "kernel_constraint": "max_norm",
            "bias_constraint": "max_norm",
        },
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "DilatedContext2D",
        {"dilations": (1, 2), "multipliers": (3, 1), "use_bias": False, "padding": "circular"},
        (2, 8, 11, 4),
        "multipliers",
    ),
    Case("FullConv1D", {"filters": 6, "kernel_size": 3}, (2, 13, 4)),
    Case(
        "FullConv2D",
        {
            "filters": 6,
            "kernel_size": (3, 2),
            "strides": (2, 1),
            "use_bias": True,
            "padding_value": "background",
            **{name: value for name, value in FULL.items() if name != "padding"},
        },
        (2, 8, 11, 4),
        "full",
    ),
    Case(
        "FullConv2D",
        {"filters": 6, "kernel_size": 2, "dilation_rate": (3, 1), "data_format": "channels_first"},
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case("FullConv3D", {"filters": 6, "kernel_size": (2, 1, 3)}, (2, 5, 7, 6, 3)),
    Case(
        "KroneckerConv2D",
        {"filters": 6, "kernel_size": (6, 3), "factors": ((2, 1, 2, 3), (3, 3, 2, 2)), "rank": 2},
        (2, 8, 11, 4),
    ),
    Case(
        "KroneckerConv2D",
        {
            **FULL,
            "filters": 6,
            "kernel_size": (3, 4),
            "factors": ((3, 2, 4, 1), (1, 2, 1, 6)),
            "rank": 3,
            "strides": (2, 1),
            "strategy": "factored",
        },
        (2, 8, 11, 4),
        "full",
    ),
    Case(
        "KroneckerConv2D",
        {
            "filters": 6,
            "kernel_size": (4, 6),
            "factors": ((2, 2, 1, 3), (2, 3, 4, 2)),
            "strides": (3, 1),
            "data_format": "channels_first",
            "strategy": "factored",
        },
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "KroneckerConv2D",
        {
            "filters": 6,
            "kernel_size": 3,
            "factors": ((3, 1, 2, 1), (1, 3, 2, 6)),
            "rank": 2,
            "padding": "replicate",
            "strategy": "dense",
        },
        (2, 8, 11, 4),
        "dense",
    ),
    Case("ScaleSpaceLifting2D", {"num_scales": 3}, (2, 8, 11, 4)),
    Case(
        "ScaleSpaceLifting2D",
        {"num_scales": 3, "base": 1.5, "zero_scale": 0.8, "data_format": "channels_first"},
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "ScaleSpaceLifting2D",
        {"num_scales": 3, "method": "bilinear", "antialias": True},
        (2, 8, 11, 4),
        "bilinear",
    ),
    Case("ScaleConv2D", {"filters": 6, "kernel_size": 3}, (2, 5, 8, 11, 4)),
    Case(
        "ScaleConv2D",
        {
            "filters": 6,
            "kernel_size": (3, 2),
            "interaction": 3,
            "strides": (2, 1),
            "rounding": "floor",
            **{name: value for name, value in FULL.items() if name != "padding"},
        },
        (2, 5, 8, 11, 4),
        "full",
    ),
    Case(
        "ScaleConv2D",
        {
            "filters": 6,
            "kernel_size": (1, 3),
            "interaction": 2,
            "base": 3,
            "data_format": "channels_first",
            "output_scales": 3,
            "use_bias": False,
        },
        (2, 4, 3, 8, 11),
        "channels_first",
    ),
    Case("SpatialTransformer2D", {"localization": localization()}, (2, 8, 11, 4)),
    Case(
        "SpatialTransformer2D",
        {
            "localization": keras.saving.serialize_keras_object(
                keras.layers.AveragePooling2D(3, data_format="channels_first")
            ),
            "output_size": (5, 6),
            "align_corners": False,
            "data_format": "channels_first",
        },
        (2, 4, 8, 11),
        "channels_first",
    ),
    Case(
        "SpatialTransformer2D",
        {
            "localization": localization(),
            "transformation": "homography",
            "padding": "reflection",
        },
        (2, 8, 11, 4),
        "homography",
    ),
    Case("ScalePooling2D", {}, (2, 5, 8, 11, 4)),
    Case(
        "ScalePooling2D",
        {"mode": "mean", "data_format": "channels_first"},
        (2, 4, 5, 8, 11),
        "mean",
    ),
    Case("GroupLiftConv2D", {"filters": 6, "kernel_size": 3, "order": 5}, (2, 8, 11, 4)),
    Case(
        "GroupLiftConv2D",
        {**FULL, "filters": 6, "kernel_size": 5, "strides": 2},
        (2, 9, 13, 3),
        "full",
    ),
    Case(
        "GroupLiftConv2D",
        {
            "filters": 6,
            "kernel_size": (3, 3),
            "order": 2,
            "dilation_rate": (2, 2),
            "padding": "circular",
            "data_format": "channels_first",
            "use_bias": False,
        },
        (3, 4, 8, 11),
        "channels_first",
    ),
    Case("GroupConv2D", {"filters": 6, "kernel_size": 3}, (2, 8, 11, 4, 5)),
    Case(
        "GroupConv2D",
        {**FULL, "filters": 7, "kernel_size": 3, "order": 6, "strides": 2},
        (2, 9, 11, 6, 5),
        "full",
    ),
    Case(
        "GroupConv2D",
        {
            "filters": 6,
            "kernel_size": 2,
            "padding": ((1, 1), (1, 1)),
            "data_format": "channels_first",
        },
        (2, 4, 5, 8, 11),
        "channels_first",
    ),
    Case(
        "GroupConv2D",
        {"filters": 4, "kernel_size": 3, "order": 3, "reflections": True, "basis": "steerable"},
        (2, 5, 7, 6, 2),
        "reflections, steerable",
    ),
    Case("GroupPooling2D", {"mode": "mean"}, (2, 8, 11, 4, 5)),
    Case("GroupPooling2D", {"data_format": "channels_first"}, (2, 4, 5, 8, 11), "channels_first"),
    Case("GroupBatchNormalization", {"momentum": 0.7, "epsilon": 0.01}, (2, 8, 11, 4, 5)),
    Case(
        "GroupBatchNormalization",
        {"data_format": "channels_first", "scale": False},
        (2, 4, 5, 8, 11),
        "channels_first",
    ),
]


def kind(case: Case) -> str:
    """A layer without its number of axes: `LocallyConnected2D` is a `LocallyConnected`."""
    return re.sub(r"[123]D", "", case.layer)


# Of each kind the first row over images, or the first if it has none.
IN_FULL = {kind(case): case for case in reversed(CASES)}
IN_FULL |= {kind(case): case for case in reversed(CASES) if "2D" in str(case)}


def in_full(case: Case) -> bool:
    """Whether the quick suite runs over this row what takes long, as compiling does.

    That depends on a layer's kind more than on arguments and axes: the other rows have it under
    `slow`, and each has its numbers, gradients, shapes and saving in the quick suite.
    """
    return IN_FULL[kind(case)] is case
