"""Training: it receives models and data, and imports neither `models` nor `data`."""

from low_rank_local_connectivity.training.records import RunError as RunError
from low_rank_local_connectivity.training.records import claimed as claimed
from low_rank_local_connectivity.training.records import full_disk as full_disk
from low_rank_local_connectivity.training.records import out_of_memory as out_of_memory
from low_rank_local_connectivity.training.records import remove_unfinished as remove_unfinished
from low_rank_local_connectivity.training.records import versions as versions
from low_rank_local_connectivity.training.records import write_json as write_json
from low_rank_local_connectivity.training.recovery import STOPPED_STATUS as STOPPED_STATUS
from low_rank_local_connectivity.training.recovery import Recovery as Recovery
from low_rank_local_connectivity.training.recovery import StoppedError as StoppedError
from low_rank_local_connectivity.training.session import Recipe as Recipe
from low_rank_local_connectivity.training.session import file_digest as file_digest
from low_rank_local_connectivity.training.session import ignore_keras_json as ignore_keras_json
from low_rank_local_connectivity.training.session import load as load
from low_rank_local_connectivity.training.session import make_deterministic as make_deterministic
from low_rank_local_connectivity.training.session import save as save
from low_rank_local_connectivity.training.session import score as score
from low_rank_local_connectivity.training.session import set_precision as set_precision
from low_rank_local_connectivity.training.session import train as train
from low_rank_local_connectivity.training.strategy import Placement as Placement
from low_rank_local_connectivity.training.strategy import lost_peer as lost_peer
from low_rank_local_connectivity.training.strategy import place as place
