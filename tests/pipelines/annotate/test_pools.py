import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.annotate.pools import quiet_context, shard_pipeline, size_pools
from xlmr_core.errors import XLMRError


def test_one_model_worker_uses_all_cores_of_a_machine_without_gpus():
    pools = size_pools(2, 0, 1)
    assert (pools.model_workers, pools.threads, pools.tokenise_workers, pools.device) == (1, 2, 1, "cpu")


def test_each_gpu_gets_a_model_worker_and_the_other_cpus_tokenise():
    pools = size_pools(64, 8, 1)
    assert (pools.model_workers, pools.model_gpus, pools.device) == (8, 1.0, "cuda")
    assert pools.tokenise_workers == 52


def test_gpus_may_be_left_alone_but_not_wished_into_being():
    assert size_pools(64, 8, 1, device="cpu").model_gpus == 0
    with pytest.raises(XLMRError, match="no GPU"):
        size_pools(64, 0, 1, device="cuda")


def test_two_workers_share_a_gpu():
    assert size_pools(16, 1, 1, model_workers=2).model_gpus == 0.5


@settings(deadline=None)
@given(
    cpus=st.integers(1, 512),
    gpus=st.integers(0, 64),
    machines=st.integers(1, 16),
    models=st.none() | st.integers(1, 64),
    tokenisers=st.none() | st.integers(1, 64),
    units=st.integers(1, 5000),
)
def test_pools_fit_into_the_cluster_and_are_never_fused(
    cpus: int, gpus: int, machines: int, models: int | None, tokenisers: int | None, units: int
):
    pools = size_pools(cpus, gpus, machines, model_workers=models, tokenise_workers=tokenisers, units=units)
    used = pools.model_workers * pools.model_cpus + pools.tokenise_workers * pools.tokenise_cpus
    assert 0 < used <= cpus + 1e-6
    assert pools.model_workers * pools.model_gpus <= max(gpus, 0) + 1e-6
    assert (pools.model_cpus, pools.model_gpus) != (pools.tokenise_cpus, 0.0)
    assert 1 <= pools.threads <= cpus
    assert max(pools.model_workers, pools.tokenise_workers) <= units


class First:
    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, table: object) -> object:
        return table


class Second(First):
    pass


@pytest.mark.usefixtures("local_ray")
def test_the_two_stages_are_operators_of_their_own_and_shards_keep_their_blocks():
    quiet_context()
    rows = [{"shard": str(index)} for index in range(5)]
    dataset = shard_pipeline(rows, size_pools(2, 0, 1), (First, Second), "x").materialize()
    lines = [line.split() for line in dataset.stats().splitlines() if "executed" in line]
    names = [words[2] for words in lines if words[0] == "Operator"]
    assert names == ["FromItems:", "MapBatches(First):", "MapBatches(Second):"]
    assert sorted(row["shard"] for row in dataset.take_all()) == list("01234")
    assert dataset.num_blocks() == 5
