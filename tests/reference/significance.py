"""What soup_core::significance is held against: McNemar's exact test by scipy and statsmodels, and bootstrap intervals by plain
resampling, whose random numbers are those that the documentation of the crate describes.

    pip install scipy statsmodels        # versions: requirements.txt
    python tests/reference/significance.py > crates/soup-core/tests/data/significance.json
"""

import json
import sys
from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import binom, binomtest, bootstrap
from statsmodels.stats.contingency_tables import mcnemar

from tallies import Counts, Metric

DISCORDANT = [(0, 0), (1, 0), (0, 1), (5, 5), (10, 2), (2, 10), (121, 59), (60, 40), (300, 301), (2500, 2300),
              (5000, 0), (51_000, 49_000), (1_001_500, 998_500), (1_010_000, 990_000)]
CLASSES = 4
SAMPLES = 120
RESAMPLES = 500
SEED = 11
METRICS = ["accuracy", "macro-f1", "binary-f1", "matthews", "loss", "accuracy+macro-f1"]
MASK = 2**64 - 1


def test(gains: int, losses: int) -> dict[str, float]:
    n = gains + losses
    two_sided = binomtest(min(gains, losses), n, 0.5).pvalue if n else 1.0
    other = mcnemar([[0, losses], [gains, 0]], exact=True).pvalue if n else 1.0
    assert abs(two_sided - other) <= 1e-8 * two_sided, (gains, losses, two_sided, other)
    better = binomtest(gains, n, 0.5, alternative="greater").pvalue if n else 1.0
    return {"gains": gains, "losses": losses, "two_sided": float(two_sided), "better": float(better)}


def split_mix(seed: int) -> Iterator[int]:
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def value(metric: str, labels: np.ndarray, predictions: np.ndarray, losses: np.ndarray) -> float:
    counts = Counts()
    for label, prediction, loss in zip(labels.tolist(), predictions.tolist(), losses.tolist(), strict=True):
        counts.add(label, prediction, loss)
    return figure(metric, counts)


def figure(metric: str, counts: Counts) -> float:
    parts = metric.split("+")
    return sum(by_definition(part, counts) for part in parts) / len(parts)


def by_definition(name: str, counts: Counts) -> float:
    """For a model of four classes, some of which a resample may not have."""
    if name == "macro-f1":
        return sum(f1(counts, c) for c in range(CLASSES)) / CLASSES
    if name == "binary-f1":
        return f1(counts, 1)
    if name == "loss":
        return counts.loss_sum / counts.total
    return float(Metric(name).value(counts))


def f1(counts: Counts, of: int) -> float:
    both = counts.labelled(of) + counts.predicted(of)
    return 2 * counts.confusion[of, of] / both if both else 0.0


def resamples(metric: str, difference: Callable[[np.ndarray], float], gains: int, losses: int) -> list[float]:
    """The difference of every resample."""
    numbers = split_mix(SEED)
    if metric == "accuracy":
        return [of_accuracy(numbers, gains, losses) for _ in range(RESAMPLES)]
    draw = lambda: np.array([(next(numbers) * SAMPLES) >> 64 for _ in range(SAMPLES)])  # noqa: E731
    return [difference(draw()) for _ in range(RESAMPLES)]


def of_accuracy(numbers: Iterator[int], gains: int, losses: int) -> float:
    discordant = gains + losses
    unit = (next(numbers) >> 11) / 2**53
    # The first count whose cumulative probability is above the number.
    drawn = int(np.argmax(binom.cdf(np.arange(SAMPLES + 1), SAMPLES, discordant / SAMPLES) > unit))
    won = sum(((next(numbers) * discordant) >> 64) < gains for _ in range(drawn))
    return (2 * won - drawn) / SAMPLES


def interval(metric: str, data: dict[str, np.ndarray]) -> dict[str, object]:
    def of(model: str, chosen: np.ndarray) -> float:
        return value(metric, data["labels"][chosen], data[model][chosen], data[f"{model}_losses"][chosen])

    def difference(chosen: np.ndarray) -> float:
        return of("candidate", chosen) - of("reference", chosen)

    right = [data[model] == data["labels"] for model in ("candidate", "reference")]
    gains, losses = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    found = sorted(resamples(metric, difference, gains, losses))
    cut = int((RESAMPLES + 1) * 0.025)
    ends = found[cut - 1], found[RESAMPLES - cut]
    theirs = bootstrap((np.arange(SAMPLES),), lambda chosen: difference(chosen.astype(int)), n_resamples=RESAMPLES,
                       vectorized=False, method="percentile", rng=np.random.default_rng(5)).confidence_interval
    width = ends[1] - ends[0]
    assert max(abs(ends[0] - theirs.low), abs(ends[1] - theirs.high)) < 0.2 * width, (metric, ends, theirs)
    return {"metric": metric, "difference": difference(np.arange(SAMPLES)), "low": ends[0], "high": ends[1]}


def models() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, CLASSES, SAMPLES)
    data = {"labels": labels}
    for model, share in (("candidate", 0.75), ("reference", 0.65)):
        data[model] = np.where(rng.random(SAMPLES) < share, labels, rng.integers(0, CLASSES, SAMPLES))
        data[f"{model}_losses"] = np.round(rng.exponential(0.8, SAMPLES), 6)
    return data


def main() -> None:
    data = models()
    golden = {
        "mcnemar": [test(*counts) for counts in DISCORDANT],
        "classes": CLASSES,
        "resamples": RESAMPLES,
        "seed": SEED,
        "outcomes": {name: column.tolist() for name, column in data.items()},
        "intervals": [interval(metric, data) for metric in METRICS],
    }
    json.dump(golden, sys.stdout)
    print()


if __name__ == "__main__":
    main()
