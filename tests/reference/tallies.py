"""What samples add up to, and the figures by which soups are compared.

Figures of counts are compared exactly: as fractions, and Matthews' correlation by its square, which keeps its sign. Two
that are equal are a tie, whatever floating point makes of them. Losses and sums are floating point.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from scipy.stats import pearsonr, spearmanr


@dataclass
class Counts:
    """What the outcomes of a classifier add up to."""

    loss_sum: float = 0.0
    confusion: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How often (label, prediction) occurred."""

    def add(self, label: int, prediction: int, loss: float) -> None:
        self.confusion[label, prediction] += 1
        self.loss_sum += loss

    @property
    def total(self) -> int:
        return self.confusion.total()

    @property
    def correct(self) -> int:
        return sum(count for (label, prediction), count in self.confusion.items() if label == prediction)

    def labelled(self, of: int) -> int:
        return sum(count for (label, _), count in self.confusion.items() if label == of)

    def predicted(self, of: int) -> int:
        return sum(count for (_, prediction), count in self.confusion.items() if prediction == of)

    def figures(self, metric: "Metric") -> dict[str, object]:
        """As soupctl's reports have them, and the confusion matrix besides."""
        parts = [*metric.parts, metric.name] if len(metric.parts) > 1 else metric.parts
        own = {name: Metric(name).value(self) for name in parts if name not in ("accuracy", "loss")}
        return {
            "correct": self.correct,
            "total": self.total,
            "accuracy": self.correct / self.total,
            "loss": finite(self.loss_sum / self.total),
            **{name.replace("-", "_"): value for name, value in own.items()},
            "confusion": [[label, prediction, count] for (label, prediction), count in sorted(self.confusion.items())],
        }


@dataclass
class Sums:
    """Figures that add up over samples."""

    samples: int
    figures_by_name: dict[str, float]

    def figures(self, metric: "Metric") -> dict[str, object]:
        figures = {name: finite(value) for name, value in self.figures_by_name.items()}
        return {"samples": self.samples, "figures": figures, "value": finite(metric.value(self))}


@dataclass
class Values:
    """The true number of each sample, and the predicted one."""

    truths: list[float] = field(default_factory=list)
    predictions: list[float] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        squares = [(a - b) ** 2 for a, b in zip(self.truths, self.predictions, strict=True)]
        return {
            "pearson": float(pearsonr(self.truths, self.predictions)[0]),
            "spearman": float(spearmanr(self.truths, self.predictions)[0]),
            "mse": math.fsum(squares) / len(squares),
        }

    def figures(self, metric: "Metric") -> dict[str, object]:
        metrics = {name: finite(value) for name, value in self.metrics().items()}
        return {"samples": len(self.truths), "metrics": metrics, "value": finite(metric.value(self))}


Tally = Counts | Sums | Values


def finite(value: float) -> float | None:
    """JSON has no word for what is not finite."""
    return value if math.isfinite(value) else None


def f1(counts: Counts, of: int) -> Fraction:
    """2 TP / (2 TP + FP + FN); 0 for a class that neither occurs nor is predicted."""
    both = counts.labelled(of) + counts.predicted(of)
    return Fraction(2 * counts.confusion[of, of], both) if both else Fraction(0)


def matthews_squared(counts: Counts) -> Fraction:
    """The square of the correlation of labels and predictions, of any number of classes, with the correlation's sign."""
    classes = {c for pair in counts.confusion for c in pair}
    labelled, predicted = ([of(c) for c in classes] for of in (counts.labelled, counts.predicted))
    samples = counts.total
    covariance = counts.correct * samples - sum(t * p for t, p in zip(labelled, predicted, strict=True))
    norm = (samples**2 - sum(p * p for p in predicted)) * (samples**2 - sum(t * t for t in labelled))
    return Fraction(covariance * abs(covariance), norm) if norm else Fraction(0)


class Metric:
    """The figure by which soups are compared, by its name; `a+b` is the mean of two."""

    PERPLEXITY = "perplexity"
    LOWER_IS_BETTER = frozenset({"loss", "mse", PERPLEXITY})
    OF_VALUES = frozenset({"pearson", "spearman", "mse"})

    def __init__(self, name: str):
        self.name = name
        self.parts = name.split("+")
        known = {"accuracy", "binary-f1", "matthews", "loss", self.PERPLEXITY, *self.OF_VALUES}
        if unknown := set(self.parts) - known:
            raise SystemExit(f"there is no metric {', '.join(sorted(unknown))} here, there are {', '.join(sorted(known))}")
        means = [{"accuracy", "binary-f1"}, {"pearson", "spearman"}]
        if len(self.parts) > 1 and not any(set(self.parts) <= known for known in means):
            raise SystemExit(f"metric {name}: only means of accuracy and binary-f1, or of correlations, are compared here")
        self.lower_is_better = name in self.LOWER_IS_BETTER

    def value(self, tally: Tally) -> float:
        """For people."""
        key = self.key(tally)
        if self.lower_is_better:
            return -float(key)
        return math.copysign(math.sqrt(abs(key)), key) if self.parts == ["matthews"] else float(key)

    def key(self, tally: Tally) -> Fraction | float:
        """What orders tallies as the metric does: the better, the larger, and equal where it is equal."""
        if isinstance(tally, Values):
            metrics = tally.metrics()
            mean = sum(metrics[part] for part in self.parts) / len(self.parts)
            return -mean if self.lower_is_better else mean
        if isinstance(tally, Sums):
            figures = tally.figures_by_name
            return -math.exp(figures["nll"] / figures["tokens"])
        if self.parts == ["loss"]:
            return -tally.loss_sum / tally.total
        if self.parts == ["matthews"]:
            return matthews_squared(tally)
        exact = {"accuracy": lambda: Fraction(tally.correct, tally.total), "binary-f1": lambda: f1(tally, 1)}
        return sum((exact[part]() for part in self.parts), Fraction(0)) / len(self.parts)

    def accepts(self, tally: Tally, bar: Tally) -> bool:
        """Whether a trial scores at least what the soup so far does. What is not a number never does, unless the soup
        so far is none either."""
        score, least = self.key(tally), self.key(bar)
        return math.isnan(least) or score >= least

    def sorted(self, tallies: Iterable[tuple[str, Tally]], best_first: bool) -> list[str]:
        """Names by their tallies; ties keep their order, whichever end comes first."""
        keys = {name: self.key(tally) for name, tally in tallies}
        order = {name: -math.inf if math.isnan(key) else key for name, key in keys.items()}
        return sorted(order, key=lambda name: (-order[name] if best_first else order[name]))
