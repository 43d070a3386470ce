"""The quick way in: one call loads a checkpoint, the next answers, in the form that transformers' pipelines give.

pipeline(task, model)  -->  Pipeline: call it with texts
forms                       how each task's inputs and answers look to a user
"""

from xlmr_core.interface.pipeline import Pipeline, pipeline

__all__ = ["Pipeline", "pipeline"]
