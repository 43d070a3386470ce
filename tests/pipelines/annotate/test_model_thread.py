import pytest

from pipelines.annotate import model_thread
from pipelines.annotate.model_thread import ModelThread
from pipelines.annotate.rows import parse_tasks
from xlmr_core.graph import GraphPlan, Preprocessor


def test_the_models_thread_settles_its_process_once(tasks: list[str], monkeypatch: pytest.MonkeyPatch):
    settled: list[object] = []
    monkeypatch.setattr(model_thread.torch, "set_num_threads", settled.append)
    monkeypatch.setattr(model_thread, "keep_freed_memory", lambda: settled.append("memory"))
    plan = GraphPlan.resolve(parse_tasks(tasks[:1]))
    model = ModelThread(plan, device="cpu", dtype="float32", threads=1)
    for _ in range(2):
        model.forward(Preprocessor(plan)(["eins", "zwei"]))
    assert settled == [1, "memory"]


def test_every_batch_is_a_sign_of_life(tasks: list[str]):
    plan = GraphPlan.resolve(parse_tasks(tasks[:1]))
    model = ModelThread(plan, device="cpu", dtype="float32", threads=1, max_tokens=64)
    beats: list[None] = []
    model.forward(Preprocessor(plan)(["a long text of many words " * 30] * 3), lambda: beats.append(None))
    assert len(beats) > 3
