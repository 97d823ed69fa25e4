"""External judges for soupctl: score model soups with your own model, data and metrics.

Subclass `Judge`, and `serve` it:

    class MyJudge(soup_judge.Judge):
        version = "1"

        def open(self, schema, datasets): ...
        def load(self, tensors): ...
        def judge(self, model, dataset, positions): ...

    soup_judge.serve(MyJudge())
"""

from soup_judge.answers import Gradient, Loss, Metric, OfLogits, Outcomes, Range, Sums, Survey, Values
from soup_judge.errors import Refused, WrongAnswer
from soup_judge.judge import Judge
from soup_judge.schema import Dataset, Schema, Tensor
from soup_judge.server import Server, serve
from soup_judge.tensors import Tensors

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "Gradient",
    "Judge",
    "Loss",
    "Metric",
    "OfLogits",
    "Outcomes",
    "Range",
    "Refused",
    "Schema",
    "Server",
    "Sums",
    "Survey",
    "Tensor",
    "Tensors",
    "Values",
    "WrongAnswer",
    "serve",
]
