"""What the meter refuses, in words."""

import keras
import numpy as np
import pytest
from keras import layers

from low_rank_local_connectivity.equivariance import (
    Rotation,
    Scale,
    Shift,
    accuracy_under_shifts,
    curve,
    error,
    location_probe,
    shift_consistency,
)

SHAPE = (11, 14, 2)


def chain(*stack):
    return keras.Sequential([keras.Input(SHAPE), *stack], name="net")


def peak_column(x):
    return x.max(axis=(1, 3))


IMAGES = np.ones((4, *SHAPE), "float32")


def strided():
    return chain(layers.Conv2D(2, 3, strides=(2, 1)))


def branching():
    inputs = keras.Input(SHAPE)
    shared = layers.Conv2D(2, 3, padding="same", name="shared")
    return keras.Model(inputs, [shared(shared(inputs)), inputs], name="net")


def forever():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(IMAGES).batch(2).repeat()


ERRORS = {
    "rows": (
        lambda: Shift(0.5, 0),
        "`rows` of a Shift must be a whole number of positions. Received: rows=0.5.",
    ),
    "columns": (
        lambda: Shift(0, 1.0),
        "`columns` of a Shift must be a whole number of positions. Received: columns=1.0.",
    ),
    "factor": (
        lambda: Scale(0.0),
        "`factor` must be a finite number above 0. Received: factor=0.0.",
    ),
    "degrees": (
        lambda: Rotation(np.inf),
        "`degrees` must be a finite number. Received: degrees=inf.",
    ),
    "interpolation": (
        lambda: Rotation(30, "nearest"),
        (
            "`interpolation` must be one of 'bilinear', 'bicubic'. "
            "Received: interpolation='nearest'."
        ),
    ),
    "odd shift of strided features": (
        lambda: error(strided(), IMAGES, Shift(3, 1)),
        (
            "A shift by (rows, columns) pixels moves features whose strides are (2, 1) by whole "
            "positions only if it is a multiple of (2, 1). Received: Shift(3, 1)."
        ),
    ),
    "unknown stride": (
        lambda: error(lambda x: x[:, 1:], IMAGES, Shift(1)),
        (
            "How far a shift of the images moves the features depends on the total stride between "
            "them, which is not known here. Received: images of size (11, 14) and features of "
            "size (10, 14). Give `strides`."
        ),
    ),
    "wrapped shift of fewer features": (
        lambda: error(strided(), IMAGES, Shift(2, 1, wrap=True)),
        (
            "A shift that wraps around the images wraps around the features only if these cover "
            "the images. Received: images of size (11, 14), and features of size (5, 12) and "
            "strides (2, 1). Use wrap=False."
        ),
    ),
    "layer of a function": (
        lambda: error(len, IMAGES, Shift(1), layer="conv"),
        (
            "`layer` names a layer of a Keras model. Received: layer='conv' with a "
            "builtin_function_or_method. Give error() the model, or a function that returns the "
            "features."
        ),
    ),
    "unknown layer": (
        lambda: error(chain(layers.ReLU(name="relu")), IMAGES, Shift(1), layer="conv"),
        (
            "error() finds no layer 'conv' between the inputs and outputs of model 'net'. "
            "Received: a model with the layers 'relu'. A layer of a model within it is named "
            "'model/layer'."
        ),
    ),
    "layer within a layer": (
        lambda: curve(chain(layers.ReLU(name="relu")), IMAGES, [Shift(1)], layer="relu/conv"),
        (
            "curve() takes functional and Sequential models, whose layers it can see. Received: "
            "ReLU, which says in Python what it does. Make it functional: keras.Model(inputs, "
            "outputs)."
        ),
    ),
    "layer called twice": (
        lambda: error(branching(), IMAGES, Shift(1), layer="shared"),
        (
            "Layer 'shared' has one output for each of its calls, so error() cannot tell which is "
            "meant. Received: model 'net', which calls it 2 times."
        ),
    ),
    "two outputs": (
        lambda: error(branching(), IMAGES, Shift(1)),
        (
            "error() needs one array of features. Received: a list of 2. Name a layer, or give a "
            "function that returns one of them."
        ),
    ),
    "one value for all": (
        lambda: error(lambda x: x.sum(), IMAGES, Shift(1)),
        (
            "error() needs features of shape (batch, ...), one row for each image. Received: "
            "shape () for 4 images."
        ),
    ),
    "kind": (
        lambda: error(np.square, IMAGES, Shift(1), kind="covariance"),
        "`kind` must be one of 'equivariance', 'invariance'. Received: kind='covariance'.",
    ),
    "margin": (
        lambda: error(np.square, IMAGES, Shift(1), margin=-1),
        "`margin` must be an integer of at least 0. Received: margin=-1.",
    ),
    "nothing left": (
        lambda: error(np.square, IMAGES, Shift(3), margin=4),
        (
            "No position of the feature map is left to count. Received: features of size (11, 14) "
            "with margin=4. Use larger images, a smaller transform or a smaller margin."
        ),
    ),
    "margin of a vector": (
        lambda: error(lambda x: x[:, 0, 0], IMAGES, Shift(1), "invariance", margin=1),
        (
            "A margin needs features with rows and columns. Received: margin=1 for features of "
            "shape (4, 2)."
        ),
    ),
    "transform of a vector": (
        lambda: error(lambda x: x[:, 0, 0], IMAGES, Shift(1)),
        (
            "Features without rows and columns have no positions to transform. Received: features "
            "of shape (4, 2). Name a layer before them, or ask for kind='invariance'."
        ),
    ),
    "function alone": (
        lambda: error(np.square, IMAGES, np.sqrt),
        (
            "What a function of images does to features is not known. Received: "
            "act_on_outputs=None with kind='equivariance'. Give `act_on_outputs`, or ask for "
            "kind='invariance'."
        ),
    ),
    "action under invariance": (
        lambda: error(np.square, IMAGES, np.sqrt, "invariance", act_on_outputs=np.sqrt),
        (
            "Under kind='invariance' nothing acts on the outputs. Received: an `act_on_outputs`. "
            "Leave it out, or ask for kind='equivariance'."
        ),
    ),
    "other shape": (
        lambda: error(np.square, IMAGES, np.sqrt, act_on_outputs=lambda x: x[:, 1:]),
        (
            "Features of transformed images must have the shape of transformed features. "
            "Received: shapes (4, 11, 14, 2) and (4, 10, 14, 2). Give an `act_on_outputs` that "
            "returns that shape."
        ),
    ),
    "values": (
        lambda: curve(np.square, IMAGES, [Shift(1)], values=[1, 2]),
        "`values` must be one for each transform. Received: 2 for 1 transforms.",
    ),
    "values of functions": (
        lambda: curve(np.square, IMAGES, [np.sqrt], act_on_outputs=[np.sqrt]),
        (
            "A function has no known parameter, so a curve over functions needs `values`. "
            "Received: values=None with 1 functions among the transforms."
        ),
    ),
    "batch size": (
        lambda: error(np.square, IMAGES, Shift(1), batch_size=0),
        "`batch_size` must be an integer of at least 1. Received: batch_size=0.",
    ),
    "no images": (
        lambda: error(np.square, [], Shift(1), progress=False),
        "There must be at least one image. Received: none.",
    ),
    "neither of two": (
        lambda: shift_consistency(peak_column, IMAGES),
        (
            "One of `max_shift` and `shifts` must be given, and not both. Received: "
            "max_shift=None and shifts=None."
        ),
    ),
    "one shift": (
        lambda: shift_consistency(peak_column, IMAGES, shifts=[(0, 1)]),
        "`shifts` must hold at least 2 shifts to compare. Received: shifts=[(0, 1)].",
    ),
    "no scores": (
        lambda: shift_consistency(np.square, IMAGES, max_shift=1),
        (
            "shift_consistency() needs scores of shape (batch, classes), of 2 or more classes. "
            "Received: outputs of shape (4, 11, 14, 2)."
        ),
    ),
    "no labels": (
        lambda: accuracy_under_shifts(peak_column, IMAGES),
        (
            "accuracy_under_shifts() needs labels: as `labels` for an array of images, or in the "
            "items (images, labels) of a stream. Received: images alone."
        ),
    ),
    "labels of a stream": (
        lambda: accuracy_under_shifts(peak_column, [IMAGES], [0, 1, 2, 3]),
        (
            "`labels` must be one for each of an array of images. Received: 4 labels for a "
            "stream, which brings its own labels."
        ),
    ),
    "probe of nothing": (
        lambda: location_probe(np.square),
        "One of `images` and `image_shape` must be given, and not both. Received: neither.",
    ),
    "probe of both": (
        lambda: location_probe(np.square, IMAGES, SHAPE),
        "One of `images` and `image_shape` must be given, and not both. Received: both.",
    ),
    "ridge": (
        lambda: location_probe(np.square, IMAGES, ridge=0),
        "`ridge` must be a finite number above 0. Received: ridge=0.",
    ),
    "probe of one image": (
        lambda: location_probe(np.square, IMAGES[:1]),
        (
            "location_probe() needs at least 2 images: one to train the probe, one to judge it. "
            "Received: 1."
        ),
    ),
    "probe of vectors": (
        lambda: location_probe(lambda x: x[:, 0, 0], IMAGES),
        (
            "location_probe() needs features with rows, columns and channels. Received: features "
            "of shape (4, 2). Name a layer."
        ),
    ),
    "probe of a line": (
        lambda: location_probe(lambda x: x[:, :1], IMAGES),
        (
            "location_probe() needs at least 2 positions along each axis. Received: features of "
            "size (1, 14)."
        ),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_says_what_must_hold_what_came_and_what_to_do(case):
    act, text = ERRORS[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == text


@pytest.mark.once
def test_a_stream_that_never_ends_is_refused():
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        error(np.square, forever(), Shift(1))
    assert str(caught.value) == (
        "A stream of images must end. Received: a dataset that repeats for ever. Use its "
        "take(number of batches)."
    )
