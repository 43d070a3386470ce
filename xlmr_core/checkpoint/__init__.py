"""Reading and writing model directories: what files hold, under which names, and whether it fits.

    spec ------location-----> a directory (downloaded if it is a Hub id)
    directory --weights-----> stored tensors: shapes known, bytes still on disk
    stored ----keys---------> our parameter names, one table for both directions
    fitting ---assembly-----> modules filled without a second copy
    writing                   the same way back

`Checkpoint` ties these together; nothing is ever initialised at random and nothing is ever unpickled.
"""

from xlmr_core.checkpoint.calibration import HeadCalibration, save_calibration
from xlmr_core.checkpoint.embedding import EmbeddingSpec, ModuleSpec
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.checkpoint.purpose import TaskKind
from xlmr_core.checkpoint.reading import Checkpoint, CheckpointReport
from xlmr_core.checkpoint.writing import TrainedHead, write_model_directory

__all__ = [
    "Checkpoint",
    "CheckpointReport",
    "EmbeddingSpec",
    "HeadCalibration",
    "HeadKind",
    "ModuleSpec",
    "TaskKind",
    "TrainedHead",
    "save_calibration",
    "write_model_directory",
]
