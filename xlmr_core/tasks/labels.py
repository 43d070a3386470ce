"""Which names a head's outputs have."""

from xlmr_core.checkpoint import Checkpoint
from xlmr_core.checkpoint.keys import HeadKind
from xlmr_core.errors import TaskError


def settle_labels(checkpoint: Checkpoint, head: HeadKind, given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The user's names, else the checkpoint's, else `LABEL_0`, `LABEL_1`, ... as transformers calls them.

    Raises:
        CheckpointError: The checkpoint has no such head.
        TaskError: There are more or fewer names than outputs, or two are the same.
    """
    count = checkpoint.num_labels(head)
    labels = given or checkpoint.config.id2label or tuple(f"LABEL_{index}" for index in range(count))
    if len(labels) != count:
        rule = f"the head has {count} outputs"
        raise TaskError(f"{checkpoint.spec}: got {len(labels)} labels, {rule}; pass labels=a|b|... in its order")
    if len(set(labels)) != len(labels):
        raise TaskError(f"{checkpoint.spec}: got the labels {', '.join(labels)}, names must differ; correct labels=")
    return tuple(labels)
