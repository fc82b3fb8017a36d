"""Models that Keras 2 (`tf.keras`, `tf_keras`) saved, as models of Keras 3.

Locally connected layers are ours, whichever of Keras 2's three ways they stored their weights in.
"""

from low_rank_local_connectivity.legacy.loading import load_model, load_weights

__all__ = [
    "load_model",
    "load_weights",
]
