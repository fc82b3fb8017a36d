"""The functions that build networks, each imported when it is called.

The command line can name them without loading a framework. Arguments are those of the function of
the same name in the module that is imported.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def application(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds a network of keras.applications."""
    from .application_network import application

    return application(*args, **kwargs)


def simple_network(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds the three-layer network."""
    from .simple_network import simple_network

    return simple_network(*args, **kwargs)


def transformer(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds a network behind a spatial transformer."""
    from .transformer import transformer

    return transformer(*args, **kwargs)


def resnet(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds a residual network."""
    from .resnet import resnet

    return resnet(*args, **kwargs)


def bagnet(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds a bag of local features."""
    from .bagnet import bagnet

    return bagnet(*args, **kwargs)


def simple_scale_network(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds the three-layer network on a scale space."""
    from .scale_networks import simple_scale_network

    return simple_scale_network(*args, **kwargs)


def scale_resnet(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds a residual network on a scale space."""
    from .scale_networks import scale_resnet

    return scale_resnet(*args, **kwargs)


def group_network(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds the three-layer network of turned filters."""
    from .group_network import group_network

    return group_network(*args, **kwargs)


def group_resnet(*args: Any, **kwargs: Any) -> "keras.Model":
    """Builds a residual network of turned filters."""
    from .group_resnet import group_resnet

    return group_resnet(*args, **kwargs)
