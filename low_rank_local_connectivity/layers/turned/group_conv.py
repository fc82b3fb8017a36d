"""Convolutions that turn their filters, so that turned images give turned maps."""

import keras

from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.turned.base_group_conv import BaseGroupConv2D


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class GroupLiftConv2D(BaseGroupConv2D):
    """The first layer of a rotation-equivariant network: filters in all orientations.

    `outputs[..., r, :] = activation(conv(inputs, turn_r(kernel)) + bias)`, `turn_r` the rotation by
    `360 r / order` degrees, counter-clockwise. So an image that is turned by `g` of these steps
    gives the same maps turned, their orientations moved on by `g`:

    `layer(turn_g(x))[p, r] = layer(x)[turn_g^-1(p), (r - g) % order]`.

    With `reflections` there are `order` more orientations, those of the mirrored filter: `turn_r`
    for `r` from `order` swaps left and right, then rotates by `360 (r - order) / order` degrees.
    The group is then D_N, and the law holds for its products: `layer(turn_g(x))[p, r] =
    layer(x)[turn_g^-1(p), g^-1 r]`. Reflections are exact, whatever the order.

    With `order` 4, 2 or 1 rotations are exact, too, up to rounding. With another, filters are
    turned between the pixels, images too, and the law holds approximately. On noise smoothed by a
    Gaussian of 3 pixels and turned by 45 degrees the relative error at order 8 is, for kernels of
    3, 5 and 7 taps per axis, 0.079, 0.028 and 0.022 with `basis="taps"`; with `"steerable"` it is
    0.0025, 0.0012 and 0.0011, of which about 0.001 is the interpolation by which
    `check_equivariance` measures it. Multiples of 90 degrees stay exact if 4 divides the order.

    Activations, biases, averages over positions and batch normalisation (`GroupBatchNormalization`)
    keep the law if they treat all orientations alike. Poolings do if their windows sit alike in
    turned images: `keras.layers.AveragePooling3D((2, 2, 1))` on even sizes.

    Args:
        filters: Number of filters, each in all orientations.
        kernel_size: Taps per axis: an integer, or a tuple of two that are equal. Odd under
            `"same"` padding at stride 1.
        order: Number of rotations, at least 1; 1 is a plain convolution. 4 is exact, and every
            orientation costs as much as its filters would without.
        strides: Step between windows, the same along both axes. Above 1 it needs images over which
            the windows lie alike seen from either side: under `"same"` at stride 2, of odd sizes
            for an odd kernel, of even sizes for an even one; with `n` zeros at every side, of sizes
            with `(size + 2 n - extent) % strides == 0`, `extent` being
            `dilation_rate * (kernel_size - 1) + 1`.
        padding: `"valid"`; a number of zeros for every side of the image; `"same"`, as many zeros
            on every side as keep the size at stride 1; or a border that is read from the image,
            `"circular"`, `"reflect"` or `"replicate"`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps, the same along both axes.
        activation: Name or callable.
        use_bias: Whether each filter has a bias, the same in all orientations.
        kernel_initializer: Initializer of the kernel, with the fans of the plain convolution
            that the layer stands for. `"he_normal"`, for ReLU.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the bias.
        reflections: Whether filters are mirrored, too: twice as many orientations, for images
            whose mirror image means the same.
        basis: `"taps"`, all of which are free and which are turned by bilinear interpolation; or
            `"steerable"`, the kernels among them that turn by any angle: 6, 12 and 19 independent
            ones of 3, 5 and 7 taps per axis. The part of `kernel` that is not steerable is not
            used. Chosen for images without details of less than two pixels, or twice
            `dilation_rate`.

    Weights:
        kernel: `(k, k, input channels, filters)`. If neither 1, 2 nor 4 is the order, taps outside
            of the disc of diameter `k` are not used: 4 of 25, 12 of 49.
        bias: `(filters,)`.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; with strides above
        1, of known size.

    Output:
        `(batch, height, width, order, filters)`, or `(batch, order, filters, height, width)`
        under `"channels_first"`: either becomes the maps of a plain convolution by a reshape. With
        `reflections`, `2 * order` orientations.

    Raises:
        ValueError: If an argument is out of range, or kernel, strides, padding and size would not
            give turned maps for turned images.

    Example:
        >>> lift, conv = GroupLiftConv2D(6, 3), GroupConv2D(5, 3)
        >>> images = keras.random.normal((1, 9, 9, 2))
        >>> turned = conv(lift(keras.ops.rot90(images, axes=(1, 2))))
        >>> maps = keras.ops.rot90(conv(lift(images)), axes=(1, 2))
        >>> bool(keras.ops.all(abs(turned - keras.ops.roll(maps, 1, axis=3)) < 1e-4))
        True
        >>> images = keras.random.normal((1, 9, 8, 2))
        >>> errors = GroupLiftConv2D(5, 3, 1, reflections=True).check_equivariance(images)
        >>> list(errors), max(errors.values()) < 1e-5
        (['reflection'], True)

    Reference:
        Cohen and Welling, "Group Equivariant Convolutional Networks", ICML 2016; steerable
        kernels: Weiler and Cesa, "General E(2)-Equivariant Steerable CNNs", NeurIPS 2019.
    """

    reads_orientations = False


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(GroupLiftConv2D)
class GroupConv2D(BaseGroupConv2D):
    """A later layer of a rotation-equivariant network: filters over positions and orientations.

    `outputs[..., r, :] = activation(sum_s conv(inputs[..., s, :], turn_r(kernel[(s - r) % order]))
    + bias)`: in orientation `r` a filter is turned, and so is its order of orientations. The law
    of `GroupLiftConv2D` holds, with orientations at both sides:
    `layer(turn_g(x))[p, r] = layer(x)[turn_g^-1(p), (r - g) % order]`, where `turn_g` moves on the
    orientations of its argument too.

    Sizes must fit as those of `GroupLiftConv2D`. There are as many parameters as in a plain
    convolution of `sqrt(order)` times as many channels and filters.

    Weights:
        kernel: `(k, k, order, input channels, filters)`; `2 * order` with `reflections`.
        bias: `(filters,)`.

    Input:
        `(batch, height, width, order, channels)`, or `(batch, order, channels, height, width)`
        under `"channels_first"`.

    Output:
        The same with `filters` channels.

    Example:
        >>> layer = GroupConv2D(6, 3, order=8, padding="same")
        >>> tuple(layer(keras.ops.ones((2, 9, 7, 8, 5))).shape), layer.count_params()
        ((2, 9, 7, 8, 6), 2166)
        >>> layer.to_conv2d().count_params()
        17328

    Reference:
        Cohen and Welling, "Group Equivariant Convolutional Networks", ICML 2016.
    """

    reads_orientations = True
