# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""What a layer says when its arguments or inputs cannot be."""

import keras
import numpy as np
import pytest

from low_rank_local_connectivity import layers, ops


def low_rank(**changes):
    arguments = {"filters": 6, "kernel_size": 3, "spatial_rank": 4, "name": "layer", **changes}
    return layers.LowRankLocallyConnected2D(**arguments)


CONSTRUCTION = {
    "filters": (
        lambda: layers.LocallyConnected2D(0, 3),
        "`filters` must be an integer of at least 1. Received: filters=0.",
    ),
    "kernel size": (
        lambda: layers.LocallyConnected2D(4, (3, 2, 1)),
        (
            "`kernel_size` must be an integer of at least 1, or a tuple of 2 of them. "
            "Received: kernel_size=(3, 2, 1)."
        ),
    ),
    "padding": (
        lambda: layers.LocallyConnected2D(4, 3, padding="causal"),
        (
            "`padding` must be one of 'valid', 'same', 'circular', 'reflect', 'replicate', or a "
            "tuple with a pair (before, after) of integers of at least 0 for each spatial axis, "
            "here 2. Received: padding='causal'."
        ),
    ),
    "data format": (
        lambda: layers.SpatialBias(data_format="NCHW"),
        (
            "`data_format` must be one of 'channels_last', 'channels_first'. "
            "Received: data_format='NCHW'."
        ),
    ),
    "argument of the layer that a depthwise one derives from": (
        lambda: layers.DepthwiseLocallyConnected2D(3, filters=4),
        (
            "DepthwiseLocallyConnected2D takes the arguments of Keras's layer of that kind, such as "
            "`depthwise_initializer`. Received: filters=4. Leave it out."
        ),
    ),
    "kernel's argument of a separable layer": (
        lambda: layers.SeparableLowRankLocallyConnected1D(4, 3, 2, kernel_regularizer="l2"),
        (
            "SeparableLowRankLocallyConnected1D takes the arguments of Keras's layer of that kind, "
            "such as `depthwise_initializer`. Received: kernel_regularizer='l2'. Leave it out."
        ),
    ),
    "fan": (
        lambda: layers.LocallyConnected2D(4, 3, fan="in"),
        "`fan` must be one of 'position', 'kernel'. Received: fan='in'.",
    ),
    "rank": (
        lambda: low_rank(spatial_rank=0),
        "`spatial_rank` must be an integer of at least 1. Received: spatial_rank=0.",
    ),
    "list of another length": (
        lambda: low_rank(kernel_size=[3, 5], padding="same"),
        (
            "A list as `kernel_size` gives each of the `spatial_rank` banks its own value, so it must "
            "have that length. Received: kernel_size=[3, 5] with spatial_rank=4. For one value per "
            "axis use a tuple."
        ),
    ),
    "mixed basis without padding": (
        lambda: low_rank(kernel_size=[3, 5], spatial_rank=2),
        (
            "Banks of different kernel sizes or dilation rates need padding that keeps the size. "
            "Received: padding='valid' with kernel_size=[(3, 3), (5, 5)] and dilation_rate=(1, 1). "
            "Use padding='same'."
        ),
    ),
    "axes": (
        lambda: low_rank(additive_axes=(0, 2)),
        (
            "`additive_axes` must be distinct spatial axes, each from 0 to 1. "
            "Received: additive_axes=(0, 2)."
        ),
    ),
    "axes of input-dependent weights": (
        lambda: low_rank(input_dependent=True, additive_axes=(0,)),
        (
            "Input-dependent combining weights are predicted for every position, so `additive_axes` "
            "must be () or left None with `input_dependent=True`. Received: additive_axes=(0,)."
        ),
    ),
    "sharing of input-dependent weights": (
        lambda: low_rank(input_dependent=True, share_row_combining_weights=True),
        (
            "Input-dependent combining weights are predicted for every position, so `additive_axes` "
            "must be () or left None with `input_dependent=True`. Received: additive_axes=(0,)."
        ),
    ),
    "axes said twice": (
        lambda: low_rank(additive_axes=(0,), share_row_combining_weights=True),
        (
            "`additive_axes` and the `share_{row,col}_combining_weights` say the same thing twice. "
            "Received: additive_axes=(0,), share_row_combining_weights=True and "
            "share_col_combining_weights=None. Give one."
        ),
    ),
    "normalization": (
        lambda: low_rank(normalize_weights="sigmoid"),
        (
            "`normalize_weights` must be one of 'softmax', 'norm', None, ''. "
            "Received: normalize_weights='sigmoid'."
        ),
    ),
    "the release's implementation": (
        lambda: low_rank(implementation=1),
        (
            "`implementation` must name a plan: 'auto', 'convolve_then_combine', "
            "'combine_then_convolve' or 'fused'. Received: implementation=1. The numbers of the "
            "original release have no meaning here."
        ),
    ),
    "impossible implementation": (
        lambda: low_rank(implementation="combine_then_convolve", input_dependent=True),
        (
            "Banks can be mixed before convolving only if they have one kernel size and dilation rate "
            "and the combining weights are the same for all examples. Received: "
            "implementation='combine_then_convolve' with input_dependent=True, kernel_size=(3, 3) and "
            "dilation_rate=(1, 1). Use implementation='auto'."
        ),
    ),
    "rank that is not whole": (
        lambda: low_rank(spatial_rank=1.5),
        "`spatial_rank` must be an integer of at least 1. Received: spatial_rank=1.5.",
    ),
    "flag in words": (
        lambda: low_rank(use_bias="yes"),
        "`use_bias` must be True or False. Received: use_bias='yes'.",
    ),
    "initializer that is none": (
        lambda: low_rank(kernel_initializer=int),
        (
            "`kernel_initializer` must be an initializer: its name, its configuration, or a function "
            "of a shape and a dtype. Received: kernel_initializer=<class 'int'>."
        ),
    ),
    "wrapped layer that is none": (
        lambda: layers.OverLevels("batch"),
        "`layer` must be a layer. Received: layer='batch'.",
    ),
    "bias said twice": (
        lambda: layers.SpatialBias(additive_axes=(0,), per_filter=True),
        (
            "With `per_filter=True` every position has biases of its own, so `additive_axes` must be "
            "None. Received: additive_axes=(0,)."
        ),
    ),
}
BUILD = {
    "unknown size": (
        lambda: layers.LocallyConnected2D(4, 3).build((None, None, 8, 3)),
        (
            "Every position of a LocallyConnected2D layer has filters of its own, so the spatial size "
            "of its input must be known. Received: input_shape=(None, None, 8, 3). Give keras.Input a "
            "static size."
        ),
    ),
    "unknown channels": (
        lambda: low_rank().build((None, 8, 8, None)),
        (
            "The number of channels of the input must be known when a layer is built. "
            "Received: input_shape=(None, 8, 8, None) with data_format='channels_last'."
        ),
    ),
    "no batch": (
        lambda: low_rank().build((8, 9, 3)),
        (
            "`input_shape` must be the shape of the inputs, (batch, height, width, channels), with "
            "None for a batch of any size. Received: input_shape=(8, 9, 3)."
        ),
    ),
    "no batch, channels first": (
        lambda: layers.FullConv1D(4, 3, data_format="channels_first").build((3, 9)),
        (
            "`input_shape` must be the shape of the inputs, (batch, channels, length), with None "
            "for a batch of any size. Received: input_shape=(3, 9)."
        ),
    ),
    "no batch of maps with orientations": (
        lambda: layers.GroupConv2D(4, 3).build((8, 9, 4, 3)),
        (
            "`input_shape` must be the shape of the inputs, (batch, height, width, order, "
            "channels), with None for a batch of any size. Received: input_shape=(8, 9, 4, 3)."
        ),
    ),
    "small input": (
        lambda: low_rank().build((None, 2, 8, 3)),
        (
            "The kernel must fit into the input of layer 'layer': its windows span (3, 3) elements. "
            "Received: spatial input size (2, 8) with padding='valid'. Use a smaller kernel, or "
            "padding='same'."
        ),
    ),
    "small input for a dilated kernel": (
        lambda: layers.LocallyConnected2D(4, 2, dilation_rate=(1, 3), name="layer").build(
            (None, 6, 3, 2)
        ),
        (
            "The kernel must fit into the input of layer 'layer': its windows span (2, 4) elements. "
            "Received: spatial input size (6, 3) with padding='valid'. Use a smaller kernel or "
            "dilation, or padding='same'."
        ),
    ),
    "unknown row": (
        lambda: low_rank().build((None, None, 8, 3)),
        (
            "The weight 'combining_weights_row' of layer 'layer' has logits for every position along "
            "its axes, so the input's size along them must be known. Received: "
            "input_shape=(None, None, 8, 3). Give the input a static size, or share along the unknown "
            "axis by leaving it out of `additive_axes`."
        ),
    ),
    "unknown size of input-dependent weights": (
        lambda: low_rank(input_dependent=True).build((None, None, 8, 3)),
        (
            "Input-dependent combining weights need an input of known spatial size. Received: "
            "input_shape=(None, None, 8, 3). Give keras.Input a static size."
        ),
    ),
    "unknown size of a bias": (
        lambda: layers.SpatialBias(name="bias").build((None, 8, None, 3)),
        (
            "The weight 'bias_col' of layer 'bias' has one value per position, so the input's size "
            "along its axes must be known. Received: positions (8, None). Give the input a static "
            "size, or leave that axis out of `additive_axes`."
        ),
    ),
    "dense input of a bias": (
        lambda: layers.SpatialBias().build((None, 3)),
        "SpatialBias needs inputs with 1 to 3 spatial axes. Received: input_shape=(None, 3).",
    ),
    "unknown size of one filter per position": (
        lambda: low_rank(implementation="combine_then_convolve", additive_axes=(0,)).build(
            (None, 8, None, 3)
        ),
        (
            "implementation='combine_then_convolve' mixes one filter for each position, so every "
            "spatial size must be known. Received: input_shape=(None, 8, None, 3). Use "
            "implementation='auto'."
        ),
    ),
    "unknown size of a predictor": (
        lambda: layers.InputDependentCombiningWeights(4).build((None, None, 8, 3)),
        (
            "InputDependentCombiningWeights needs inputs with 1 to 3 spatial axes of known size. "
            "Received: input_shape=(None, None, 8, 3)."
        ),
    ),
    "output size of a predictor": (
        lambda: layers.InputDependentCombiningWeights(4, (5,)).build((None, 8, 8, 3)),
        (
            "`output_size` must have one number for each spatial axis of the input. Received: "
            "output_size=(5,) for inputs with 2."
        ),
    ),
}


def wrong_size():
    layer = low_rank()
    layer.build((None, 8, 9, 3))
    layer(np.zeros((2, 8, 10, 3), "float32"))


def size_of_a_strided_box():
    layer = low_rank(
        kernel_size=[1, 3], spatial_rank=2, padding="same", strides=2, additive_axes=(0,)
    )
    layer.build((None, 8, None, 3))
    layer.local_kernel()


USE = {
    "wrong size": (
        wrong_size,
        (
            "Layer 'layer' has weights for inputs of spatial size (8, 9), each position having its "
            "own. Received: inputs of shape (2, 8, 10, 3) with data_format='channels_last'. Resize "
            "the inputs, or the layer with conversion.resize(layer, input_shape)."
        ),
    ),
    "not built": (
        lambda: low_rank().local_kernel(),
        (
            "Layer 'layer' must be built before local_kernel() is called: call it on inputs, or call "
            "build(input_shape)."
        ),
    ),
    "filters that are not built": (
        lambda: layers.LocallyConnected2D(4, 3, name="layer").local_kernel(),
        (
            "Layer 'layer' must be built before local_kernel() is called: call it on inputs, or call "
            "build(input_shape)."
        ),
    ),
    "no inputs": (
        lambda: built(low_rank(input_dependent=True)).combining_weights(),
        (
            "The combining weights of layer 'layer' depend on its inputs. Received: inputs=None. Call "
            "combining_weights(inputs)."
        ),
    ),
    "no local kernel": (
        lambda: built(low_rank(input_dependent=True)).local_kernel(),
        (
            "The filters of layer 'layer' depend on its inputs, so it has no local kernel. Mix "
            "`kernel_bases` by combining_weights(inputs) for each example."
        ),
    ),
    "strided box": (
        size_of_a_strided_box,
        (
            "The padding of a strided window under padding='same' depends on the input's size, so "
            "that size must be known. Received: None. Give the input a static size."
        ),
    ),
    "filters per position of unknown size": (
        lambda: ops.Windows((3,), (1,), (1,), "valid").static_output_shape((None,)),
        (
            "A filter of its own at every position needs an input of known spatial size. Received: "
            "(None,). Give the input a static size."
        ),
    ),
}


def built(layer):
    layer.build((None, 8, 9, 3))
    return layer


@pytest.mark.parametrize("case", [*CONSTRUCTION, *BUILD, *USE])
def test_an_error_says_what_must_hold_what_came_and_what_to_do(case):
    act, text = {**CONSTRUCTION, **BUILD, **USE}[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    # Keras appends the arguments of a call to what is raised inside it.
    message = str(caught.value).removeprefix(
        "Exception encountered when calling LowRankLocallyConnected2D.call().\n\n"
    )
    message = message.split("\n\nArguments received")[0]
    assert message.replace("\x1b[1m", "").replace("\x1b[0m", "") == text


def test_the_release_s_empty_normalization_is_stored_as_none():
    layer = low_rank(normalize_weights="")
    assert layer.normalize_weights is None
    assert layer.get_config()["normalize_weights"] is None


def test_a_layer_of_another_rank_of_input_is_refused():
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=3"):
        low_rank()(keras.Input((8, 3)))
