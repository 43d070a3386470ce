"""The model graph: text is tokenised once, each encoder runs once, any number of heads read its hidden states.

The one thing that drivers drive:

    requests --GraphPlan.resolve--> GraphPlan       what to run, found by content; light, picklable, no weights
    texts    --Preprocessor-------> EncodedRecords  token ids; needs tokenizers only (CPU workers)
    encoded  --ModelGraph.forward-> Outputs         packed batches through encoders and heads (model workers)
    outputs  --ModelGraph.decode--> Annotations     columns of predictions, one row a record
"""

from xlmr_core.graph.model import Annotations, ModelGraph, Outputs
from xlmr_core.graph.plan import Annotation, GraphPlan, Request
from xlmr_core.graph.preprocess import EncodedRecords, Preprocessor

__all__ = [
    "Annotation",
    "Annotations",
    "EncodedRecords",
    "GraphPlan",
    "ModelGraph",
    "Outputs",
    "Preprocessor",
    "Request",
]
