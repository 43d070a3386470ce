"""Offline annotation: from files to committed Parquet, shard by shard (Ray Data).

    prepare   what to run and on which rows: graph, plan, fingerprint
    job       waves of shards through the stages, interruption, watchdog, end
    stages    tokenise; then compute and commit. `pools` sizes them, `encoded` is what travels between them
    inputs, plan, read, commit, output, verify    files, shards and the storage protocol
    dataset, quick    the same for the rows of any Ray Dataset, and for a few texts without Ray; `rows` serves both

The package itself can be called: `pipelines.annotate(dataset, tasks)` is `annotate_dataset`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.data import Dataset


class _CallablePackage(ModuleType):
    """Gives Ray users one short name although the package has it too; Ray is imported when it is used."""

    def __call__(self, dataset: "Dataset", tasks: Any, **options: Any) -> "Dataset":
        """See `pipelines.annotate.dataset.annotate_dataset`."""
        from pipelines.annotate.dataset import annotate_dataset

        return annotate_dataset(dataset, tasks, **options)


sys.modules[__name__].__class__ = _CallablePackage
