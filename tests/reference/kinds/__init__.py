"""How soups are judged with transformers, one module a kind of model."""

from kinds.base import Judge, Options
from kinds.causal_lm import CausalLmJudge
from kinds.clip import ClipJudge
from kinds.images import ImageJudge
from kinds.regression import RegressionJudge
from kinds.seq2seq import Seq2SeqJudge, WrittenJudge
from kinds.text import TextJudge

KINDS: dict[str, type[Judge]] = {
    "text": TextJudge,
    "regression": RegressionJudge,
    "seq2seq": Seq2SeqJudge,
    "seq2seq-written": WrittenJudge,
    "causal-lm": CausalLmJudge,
    "clip": ClipJudge,
    "images": ImageJudge,
}

__all__ = ["KINDS", "Judge", "Options"]
