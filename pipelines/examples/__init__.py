"""Labelled data of every usual format: checked to its end before anything is trained, then a stream of examples.

files, columns, languages   what was typed → files, formats, columns: `open_examples` (in `reading`); `hub` is the cache
rows, conll                 a file → records, one after the other
making, values              a record → an `Example`, or the reason why not; `words`, `answers` find places in texts
checking, tags, labels      one pass over everything: all problems at once, and a summary

source = open_examples(["train.jsonl"], ReadSettings("sequence-classification"))
summary = check_examples({"training": source})["training"]
for example in source: ...
"""

from pipelines.examples.checking import ExampleSummary, check_examples
from pipelines.examples.columns import ExampleColumns
from pipelines.examples.example import Example, Gold, Notices, Rejected, WordLabels
from pipelines.examples.files import ReadSettings
from pipelines.examples.labels import LabelCounts, label_set
from pipelines.examples.reading import ExampleSource, open_examples

__all__ = [
    "Example",
    "ExampleColumns",
    "ExampleSource",
    "ExampleSummary",
    "Gold",
    "LabelCounts",
    "Notices",
    "ReadSettings",
    "Rejected",
    "WordLabels",
    "check_examples",
    "label_set",
    "open_examples",
]
