"""Judges of transformers' models; each can be started without a line of code: `python -m soup_judge.transformers
--help`."""

from soup_judge.transformers.clip import ClipLinear, ClipZeroShot
from soup_judge.transformers.images import ImageClassification
from soup_judge.transformers.language import CausalPerplexity
from soup_judge.transformers.text import SequenceClassification, T5LabelText

__all__ = [
    "CausalPerplexity",
    "ClipLinear",
    "ClipZeroShot",
    "ImageClassification",
    "SequenceClassification",
    "T5LabelText",
]
