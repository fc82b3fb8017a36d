"""Models whose weights are not drawn."""

import contextlib
from collections.abc import Iterator

import keras
from keras.src.backend.common import global_state

# Keras's list of the weights that are still to be drawn.
WAITING = "uninitialized_variables"


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Builds models without values of their weights.

    What layers are, their sizes and numbers of parameters can be asked, and steps be compiled;
    drawing takes far longer. Keras would draw them all when the next layer is built, so it forgets
    them here.
    """
    waiting = [*(global_state.get_global_attribute(WAITING) or ())]
    with keras.StatelessScope(initialize_variables=False):
        yield
    global_state.set_global_attribute(WAITING, waiting)
