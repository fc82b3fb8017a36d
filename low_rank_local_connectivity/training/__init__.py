"""Training: it receives models and data, and imports neither `models` nor `data`."""

from low_rank_local_connectivity.training.records import versions as versions
from low_rank_local_connectivity.training.records import write_json as write_json
from low_rank_local_connectivity.training.session import Plan as Plan
from low_rank_local_connectivity.training.session import make_deterministic as make_deterministic
from low_rank_local_connectivity.training.session import save as save
from low_rank_local_connectivity.training.session import score as score
from low_rank_local_connectivity.training.session import set_precision as set_precision
from low_rank_local_connectivity.training.session import train as train
