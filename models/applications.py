"""Networks of keras.applications by name, and what is known of them before a framework loads.

Their weights, trained on ImageNet, are read where Keras keeps files that it has downloaded; nothing
is downloaded here. Those networks are in the table of which every layer with weights has a name of
its own, by which it finds its weights, and whose operations can be counted.
"""

import dataclasses
import os
from pathlib import Path

# Mean and standard deviation of ImageNet's channels red, green and blue, on a scale from 0 to 1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The mean that networks take which Caffe trained, on a scale from 0 to 255.
MEAN_OF_CAFFE = (123.68, 116.779, 103.939)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """How a network sees images of values from 0 to 255.

    Args:
        scale: Factor of each channel: red, green, blue.
        offset: What is then added to it.
        reversed: Whether its first convolution has the kernels of blue, green, red.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    reversed: bool = False


SIGNED = Inputs((1 / 127.5,) * 3, (-1.0,) * 3)
STANDARD = Inputs(
    tuple(1 / 255 / deviation for deviation in DEVIATION),
    tuple(-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)),
)
OF_CAFFE = Inputs((1.0,) * 3, tuple(-mean for mean in MEAN_OF_CAFFE), reversed=True)
USUAL = "{}_weights_tf_dim_ordering_tf_kernels_notop.h5"


@dataclasses.dataclass(frozen=True)
class Application:
    """A network of keras.applications.

    Args:
        file: Name of the file of its weights without the classifier.
        inputs: How it sees images.
    """

    file: str
    inputs: Inputs

    @property
    def path(self) -> Path:
        """The file in which Keras keeps these weights."""
        home = os.environ.get("KERAS_HOME") or "~/.keras"
        return Path(home).expanduser() / "models" / self.file


def _all_of(names: str, inputs: Inputs) -> dict[str, Application]:
    return {name: Application(USUAL.format(name.lower()), inputs) for name in names.split()}


APPLICATIONS: dict[str, Application] = {
    **_all_of("ResNet50 ResNet101 ResNet152 VGG16 VGG19", OF_CAFFE),
    **_all_of("ResNet50V2 ResNet101V2 ResNet152V2", SIGNED),
    **_all_of("DenseNet121 DenseNet169 DenseNet201", STANDARD),
    "MobileNet": Application("mobilenet_1_0_224_tf_no_top.h5", SIGNED),
    "MobileNetV2": Application(
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", SIGNED
    ),
}
