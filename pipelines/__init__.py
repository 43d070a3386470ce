"""Everything that runs on Ray: `pipelines.annotate(dataset, tasks)`, and the jobs behind the `xlmr` command."""

from pipelines import annotate

__all__ = ["annotate"]
