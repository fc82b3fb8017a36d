"""Models that Keras 2 (`tf.keras`, `tf_keras`) saved, as models of Keras 3.

Locally connected layers are ours, whichever of Keras 2's three ways they stored their weights in.
"""

from low_rank_local_connectivity.legacy.loading import load_model as load_model
from low_rank_local_connectivity.legacy.loading import load_weights as load_weights
