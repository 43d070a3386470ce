"""How many workers a cluster carries, and the Ray Data pipeline over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset

from xlmr_core.errors import XLMRError

# Logical shares of a cluster without GPUs; what is left keeps Ray's own tasks alive.
_MODEL_SHARE, _TOKENISE_SHARE = 0.75, 0.2
_TOKENISERS_WITHOUT_GPU = 2
_THREADS_BESIDE_GPU = 4


@dataclass(frozen=True, slots=True)
class Pools:
    """Workers of both stages and what each reserves.

    Attributes:
        tokenise_workers: Size of the first pool.
        tokenise_cpus: CPUs that each of them reserves.
        model_workers: Size of the second pool.
        model_cpus: CPUs that each of them reserves.
        model_gpus: GPUs that each of them reserves.
        threads: torch threads of a model worker.
    """

    tokenise_workers: int
    tokenise_cpus: float
    model_workers: int
    model_cpus: float
    model_gpus: float
    threads: int

    @property
    def device(self) -> str:
        """Where the models live."""
        return "cuda" if self.model_gpus else "cpu"


def size_pools(
    cpus: float,
    gpus: float,
    machines: int,
    *,
    device: str = "auto",
    model_workers: int | None = None,
    tokenise_workers: int | None = None,
    units: int | None = None,
) -> Pools:
    """Divides a cluster.

    With GPUs each gets one model worker, and the other CPUs tokenise. Without, each machine gets one model worker
    whose torch threads take all its cores; reservations are fractions, because a worker that reserved whole cores would
    starve the tokenisers that feed it.

    Args:
        cpus: CPUs of the cluster.
        gpus: GPUs of the cluster.
        machines: Machines with CPUs.
        device: "auto", "cpu" or "cuda".
        model_workers: Instead of the default.
        tokenise_workers: Instead of the default.
        units: Pieces of work; a pool larger than this would be idle in part.

    Raises:
        XLMRError: CUDA is asked for and the cluster has none.
    """
    if device == "cuda" and gpus < 1:
        raise XLMRError("device cuda, the Ray cluster has no GPU; pass --device cpu, or start Ray where GPUs are")
    on_gpu = gpus >= 1 and device != "cpu"
    most = max(units if units is not None else 1 << 30, 1)
    models = min(model_workers or (int(gpus) if on_gpu else max(machines, 1)), most)
    if on_gpu:
        model_cpus = min(1.0, cpus / 2 / models)
        spare = max(cpus * 0.95 - models * model_cpus, cpus * 0.2)
        tokenisers = min(tokenise_workers or max(int(spare), 1), most)
        tokenise_cpus = min(1.0, spare / tokenisers)
        threads = max(1, min(_THREADS_BESIDE_GPU, int(cpus / models)))
    else:
        model_cpus = cpus * _MODEL_SHARE / models
        tokenisers = min(tokenise_workers or _tokenisers_without_gpu(cpus, models), most)
        tokenise_cpus = min(1.0, cpus * _TOKENISE_SHARE / tokenisers)
        threads = max(1, int(cpus / models))
        # Ray would fuse two stages that ask for the same, and tokenisation would wait for the model.
        tokenise_cpus *= 0.5 if _ray_quantity(tokenise_cpus) == _ray_quantity(model_cpus) else 1.0
    return Pools(
        tokenise_workers=tokenisers,
        tokenise_cpus=_ray_quantity(tokenise_cpus),
        model_workers=models,
        model_cpus=_ray_quantity(model_cpus),
        model_gpus=_ray_quantity(gpus / models if models > gpus else 1.0) if on_gpu else 0.0,
        threads=threads,
    )


def _tokenisers_without_gpu(cpus: float, models: int) -> int:
    return max(1, min(_TOKENISERS_WITHOUT_GPU * models, int(cpus) // 2))


def _ray_quantity(value: float) -> float:
    """Rounded down to what Ray can count; it wants whole numbers above one."""
    return float(int(value)) if value > 1 else max(int(value * 1000) / 1000, 0.001)


def cluster_pools(**wishes: Any) -> Pools:
    """`size_pools` for the cluster that this process is connected to."""
    resources = ray.cluster_resources()
    machines = sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0)
    return size_pools(resources.get("CPU", 1.0), resources.get("GPU", 0.0), machines, **wishes)


def quiet_context() -> None:
    """Sets Ray Data up for a job that shows its own progress; must run before the dataset is made."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False


def shard_pipeline(
    rows: Sequence[dict[str, str]], pools: Pools, stages: tuple[type, type], settings: object
) -> Dataset:
    """The lazy dataset of a wave: rows that ask for shards in, receipts out.

    Args:
        rows: One a shard; each becomes a block of its own.
        pools: Sizes of the stages' pools.
        stages: Classes of the two stages.
        settings: The one argument of both.
    """
    dataset = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    return two_stages(dataset, pools, stages, (settings,), batch_size=1)


def two_stages(
    dataset: Dataset,
    pools: Pools,
    stages: tuple[type, type],
    arguments: tuple[object, ...],
    *,
    batch_size: int,
) -> Dataset:
    """Maps a dataset through a tokenising and a model stage that Ray does not fuse."""
    tokenise, model = stages
    encoded = dataset.map_batches(
        tokenise,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=pools.tokenise_workers),
        num_cpus=pools.tokenise_cpus,
        fn_constructor_args=arguments,
    )
    return encoded.map_batches(
        model,
        batch_size=1,
        batch_format="pyarrow",
        # Two calls at a time: one computes while the other writes.
        compute=ActorPoolStrategy(
            size=pools.model_workers,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
            max_tasks_in_flight_per_actor=4,
        ),
        num_cpus=pools.model_cpus,
        num_gpus=pools.model_gpus or None,
        fn_constructor_args=arguments,
    )
