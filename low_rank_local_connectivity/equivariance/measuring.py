"""How far a model is from commuting with a transform, example by example."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np

from low_rank_local_connectivity.equivariance.curves import Curve
from low_rank_local_connectivity.equivariance.features import Features, Measured, batches
from low_rank_local_connectivity.equivariance.scale_space import ScaleSpaceAction
from low_rank_local_connectivity.equivariance.transforms import Transform
from low_rank_local_connectivity.ops.arguments import (
    finite_number,
    one_of,
    per_axis,
    received,
    whole_number,
)

Kind = Literal["equivariance", "invariance"]
# A transform, or a function of arrays in the data format of the model.
Action = Transform | Callable[[np.ndarray], Any]


def error(
    model: Measured,
    images: Any,
    transform: Action,
    kind: Kind = "equivariance",
    layer: str | None = None,
    margin: int = 0,
    act_on_outputs: Action | None = None,
    batch_size: int = 32,
    *,
    strides: tuple[int, int] | None = None,
    data_format: str | None = None,
    progress: bool | None = None,
) -> np.ndarray:
    """Returns how far a model is from commuting with a transform, for each image.

    With the model `f`, the transform `T` of images and its counterpart `T'` on features:

    `error[n] = ||T' f(x[n]) - f(T x[n])||^2 / ||T' f(x[n])||^2`,

    the *squared* L2 norm over positions and channels, for each example separately; published
    numbers are means over examples, `error(...).mean()`. For `kind="invariance"`, `T'` is the
    identity.

    A position counts if it is at least `margin` from every side of the feature map, and so is
    every position that `T'` reads for it. This excludes what has moved in from outside, which only
    `f(T x)` contains, and, with a margin, what is computed from padding. With a margin of the
    receptive field's reach, the remaining error is due to the layers and not to the border. For
    invariance only the margin matters.

    A shift of the images shifts the features by `shift / stride`, which must be a whole number.
    Scalings and rotations act on features as on images, about the centre of the feature map. If
    padding and strides move that away from the centre of the image, as `padding="same"` does with
    an even size and stride 2, the network does not commute with them, and the error shows it. Near
    the edge of the transformed image, windows also read `fill`. For a reach of `r` positions, a
    margin of `r / factor` under a reduction, and of `sqrt(2) * r` under a rotation, excludes this.

    Args:
        model: Keras model, run in inference, or function of a batch of images, a NumPy array, such
            as `model.predict_on_batch` where compiling is worth it.
        images: Array `(examples, height, width, channels)`, or `(examples, channels, height,
            width)`; or a stream of batches: an iterable, `tf.data.Dataset` or
            `keras.utils.PyDataset`, whose items are such arrays or begin with one. A stream is
            read once, with a progress bar.
        transform: `Shift`, `Scale`, `Rotation`; `ScaleSpaceAction` or `GroupRotation` for features
            with an axis of scales or of orientations; or a function of a batch of images, which
            needs `act_on_outputs` unless `kind` is `"invariance"`.
        kind: `"equivariance"` or `"invariance"`.
        layer: Layer whose outputs are the features, `"block/conv"` for the layer `conv` of the
            model `block` within the model; the model's outputs if None.
        margin: Positions of the feature map to leave out at each side, at least 0.
        act_on_outputs: `T'`, if it does not follow from `transform`: a transform in positions of
            the feature map, or a function from a batch of features to a batch of the same size,
            or to `(features, counted)` with `counted` true where they exist, of shape
            `(height, width)` or, without any margin, of the shape of an example's features.
        batch_size: Images at a time, at least 1; a stream's batches are taken as they are.
        strides: Pixels between neighbouring positions of the feature map, for shifts. If None:
            those of `receptive_field`, or 1 for features of the images' size.
        data_format: `"channels_last"` or `"channels_first"`, of images and features; Keras's
            global setting if None.
        progress: Whether to show a progress bar; for streams if None.

    Returns:
        Array `(examples,)` in float64: 0 where both norms are 0, infinite where only
        `||T' f(x)||` is.

    Raises:
        ValueError: If the transform does not determine how features move, a shift moves features
            by a fraction of a position, no position is left to count, or an argument is out of its
            range.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((9, 8, 1)), keras.layers.Conv2D(4, 3)])
        >>> images = np.random.default_rng(0).normal(size=(2, 9, 8, 1)).astype("float32")
        >>> from low_rank_local_connectivity.equivariance import Shift
        >>> bool((error(model, images, Shift(2, -1)) < 1e-10).all())
        True

    Reference:
        Sosnovik et al., "Scale-Equivariant Steerable Networks", ICLR 2020 (there the mean over
        examples, for scalings).
    """
    actions = None if act_on_outputs is None else [act_on_outputs]
    measurement = _Measurement("error", model, kind, layer, margin, strides, data_format)
    return measurement.of([transform], actions, batches(images, None, batch_size, progress))[0]


def curve(
    model: Measured,
    images: Any,
    transforms: Iterable[Action],
    kind: Kind = "equivariance",
    layer: str | None = None,
    margin: int = 0,
    act_on_outputs: Sequence[Action] | None = None,
    batch_size: int = 32,
    *,
    values: Sequence[float] | None = None,
    strides: tuple[int, int] | None = None,
    data_format: str | None = None,
    progress: bool | None = None,
) -> Curve:
    """Returns the error under several transforms, from one pass over the images.

    As `error`, except for:

    Args:
        model: As `error`.
        images: As `error`.
        transforms: The transforms, in the order of the curve.
        kind: As `error`.
        layer: As `error`.
        margin: As `error`.
        act_on_outputs: If not None, `T'` for each transform.
        batch_size: As `error`.
        values: The parameter of each transform; its `amount` if None: pixels of a shift along the
            axis along which it is further, factor, or degrees.
        strides: As `error`.
        data_format: As `error`.
        progress: As `error`.

    Returns:
        `Curve` of values `(transforms,)` and errors `(transforms, examples)`.

    Raises:
        ValueError: As `error`; or if `values` or `act_on_outputs` are not one for each transform,
            or the values of functions are not given.

    Example:
        >>> from low_rank_local_connectivity.equivariance import Rotation
        >>> images = np.random.default_rng(0).normal(size=(2, 9, 9, 1))
        >>> found = curve(lambda x: x ** 2, images, [Rotation(0), Rotation(90)])
        >>> found.values.tolist(), found.mean.tolist()
        ([0.0, 90.0], [0.0, 0.0])
    """
    transforms = _listed("transforms", transforms)
    act_on_outputs = None if act_on_outputs is None else _listed("act_on_outputs", act_on_outputs)
    if values is not None:
        values = [finite_number("values", one) for one in _listed("values", values)]
    for name, given in (("values", values), ("act_on_outputs", act_on_outputs)):
        if given is not None and len(given) != len(transforms):
            raise ValueError(
                f"`{name}` must be one for each transform. Received: {len(given)} for "
                f"{len(transforms)} transforms."
            )
    if values is None:
        known = (Transform, ScaleSpaceAction)
        unknown = [one for one in transforms if not isinstance(one, known)]
        if unknown:
            raise ValueError(
                "A function has no known parameter, so a curve over functions needs `values`. "
                f"Received: values=None with {len(unknown)} functions among the transforms."
            )
        values = [one.amount for one in transforms if isinstance(one, known)]
    measurement = _Measurement("curve", model, kind, layer, margin, strides, data_format)
    stream = batches(images, None, batch_size, progress)
    return Curve(np.asarray(values, float), measurement.of(transforms, act_on_outputs, stream))


def _require_action(name: str, given: Any) -> None:
    """Refuses what is neither a transform nor a function of arrays."""
    if not callable(given) or (isinstance(given, keras.Layer) and not given.built):
        raise ValueError(
            f"`{name}` must be a transform, or a function of a batch. Received: "
            f"{received(name, given)}."
        )


def _listed(name: str, given: Any) -> list[Any]:
    """Returns the items of an iterable."""
    single = getattr(given, "ndim", 1) == 0 or isinstance(given, (str, bytes, keras.KerasTensor))
    if single or not hasattr(given, "__iter__"):
        raise ValueError(f"`{name}` must be a list. Received: {received(name, given)}.")
    return list(given)


class _Measurement:
    """What `error` and `curve` have in common."""

    def __init__(
        self,
        caller: str,
        model: Measured,
        kind: Kind,
        layer: str | None,
        margin: int,
        strides: tuple[int, int] | None,
        data_format: str | None,
    ) -> None:
        self.kind = one_of("kind", kind, ("equivariance", "invariance"))
        self.margin = whole_number("margin", margin, 0)
        self.given_strides: Any = None if strides is None else per_axis("strides", strides, 2)
        self.features = Features(model, layer, data_format, caller)

    def of(
        self,
        transforms: Sequence[Action],
        actions: Sequence[Action] | None,
        stream: Iterator[tuple[np.ndarray, Any]],
    ) -> np.ndarray:
        """Returns the errors `(transforms, examples)`."""
        if actions is not None and self.kind == "invariance":
            raise ValueError(
                "Under kind='invariance' nothing acts on the outputs. Received: an "
                "`act_on_outputs`. Leave it out, or ask for kind='equivariance'."
            )
        own = "transforms" if self.features.caller == "curve" else "transform"
        for name, given in ((own, transforms), ("act_on_outputs", actions or ())):
            for one in given:
                _require_action(name, one)
        found = []
        for images, _ in stream:
            features = self.features(images)
            # Once for all transforms: the features of the original images.
            found.append(
                [
                    self.errors(images, features, one, None if actions is None else actions[index])
                    for index, one in enumerate(transforms)
                ]
            )
        return np.concatenate(found, axis=1)

    def errors(
        self, images: np.ndarray, features: np.ndarray, transform: Action, action: Action | None
    ) -> np.ndarray:
        """Returns the errors of a batch under one transform."""
        if isinstance(transform, Transform):
            moved = self.features.original(transform(self.features.channels_last(images)))
        else:
            moved = np.asarray(transform(images))
        found = self.features(np.ascontiguousarray(moved)).astype(float)
        if self.kind == "invariance":
            expected, counted = features, None
        else:
            expected, counted = self.expected(images, features, transform, action)
        expected = np.asarray(expected, float)
        if expected.shape != found.shape:
            raise ValueError(
                "Features of transformed images must have the shape of transformed features. "
                f"Received: shapes {found.shape} and {expected.shape}. Give an `act_on_outputs` "
                "that returns that shape."
            )
        above = self.sum_of_squares(found - expected, counted)
        below = self.sum_of_squares(expected, counted)
        infinite = np.where(above == 0, 0.0, np.inf)
        return np.divide(above, below, out=infinite, where=below != 0)

    def expected(
        self, images: np.ndarray, features: np.ndarray, transform: Action, action: Action | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns `T' f(x)` and where it counts; None if everywhere except in the margin."""
        if action is None and isinstance(transform, ScaleSpaceAction):
            return transform.on_features(features)
        if action is None and not isinstance(transform, Transform):
            raise ValueError(
                "What a function of images does to features is not known. Received: "
                "act_on_outputs=None with kind='equivariance'. Give `act_on_outputs`, or ask for "
                "kind='invariance'."
            )
        if action is not None and not isinstance(action, Transform):
            result = action(features)
            return result if isinstance(result, tuple) else (result, None)
        if features.ndim < 4:
            raise ValueError(
                "Features without rows and columns have no positions to transform. Received: "
                f"features of shape {features.shape}. Name a layer before them, or ask for "
                "kind='invariance'."
            )
        maps = self.features.channels_last(features)
        own: Any = action if action is not None else self.of_features(images, maps, transform)
        return self.features.original(own(maps)), own.counted(*maps.shape[1:3], self.margin)

    def of_features(self, images: np.ndarray, maps: np.ndarray, transform: Any) -> Transform:
        """Returns the counterpart on feature maps of a transform of images."""
        height, width = self.features.channels_last(images).shape[1:3]
        feature_size: Any = maps.shape[1:3]
        strides = self.given_strides or self.features.strides((height, width), feature_size)
        return transform.on_features((height, width), feature_size, strides)

    def sum_of_squares(self, values: np.ndarray, counted: np.ndarray | None) -> np.ndarray:
        """Returns the squared norm of every example, over the positions that count."""
        if values.ndim < 4:
            if self.margin:
                raise ValueError(
                    "A margin needs features with rows and columns. Received: "
                    f"margin={self.margin} for features of shape {values.shape}."
                )
            return np.square(values).reshape(len(values), -1).sum(axis=1)
        if counted is not None and counted.shape == values.shape[1:]:
            if self.margin:
                raise ValueError(
                    "What acts on the features says itself which of their elements count. "
                    f"Received: margin={self.margin}. Give the margin to it: "
                    "ScaleSpaceAction(margin=...)."
                )
            return np.square(values)[:, counted].sum(axis=1)
        squares = np.square(self.features.channels_last(values))
        height, width = squares.shape[1:3]
        inside = np.zeros((height, width), bool)
        margin = self.margin
        inside[margin : height - margin, margin : width - margin] = True
        if counted is not None:
            inside &= counted
        if not inside.any():
            raise ValueError(
                "No position of the feature map is left to count. Received: features of size "
                f"{(height, width)} with margin={margin}. Use larger images, a smaller transform "
                "or a smaller margin."
            )
        return squares[:, inside].reshape(len(squares), -1).sum(axis=1)
