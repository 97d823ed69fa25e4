"""What soup_core::diagnosis::boosting is held against: scikit-learn's AdaBoostClassifier (SAMME), whose learners are taken from a pool of
fixed predictions.

    pip install scikit-learn             # version: requirements.txt
    python tests/reference/boosting.py > crates/soup-core/tests/data/boosting.json
"""

import json
import sys

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import AdaBoostClassifier

ROUNDS = 50
# Samples, classes, how often each learner is right.
POOLS = [
    (200, 4, [0.7, 0.6, 0.72, 0.5, 0.65, 0.3, 0.68]),
    (150, 2, [0.8, 0.78, 0.7, 0.82, 0.4, 0.6, 0.75, 0.71, 0.66, 0.8]),
    (300, 10, [0.3, 0.25, 0.05, 0.5]),
    (40, 3, [0.9, 1.0, 0.8]),
]


class FromPool(ClassifierMixin, BaseEstimator):
    """Columns of X are what the members of a pool predict; to fit is to take the one with the least weighted error."""

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray) -> "FromPool":
        self.classes_ = np.unique(y)
        errors = (sample_weight[:, None] * (X != y[:, None])).sum(axis=0)
        self.member_ = int(np.argmin(errors))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return X[:, self.member_]


def boosted(samples: int, classes: int, shares: list[float], seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    right = rng.random((samples, len(shares))) < np.array(shares)
    wrong = (labels[:, None] + rng.integers(1, classes, right.shape)) % classes
    predictions = np.where(right, labels[:, None], wrong)
    model = AdaBoostClassifier(FromPool(), n_estimators=ROUNDS, learning_rate=1.0).fit(predictions, labels)
    votes = np.zeros(len(shares))
    for learner, alpha in zip(model.estimators_, model.estimator_weights_[: len(model.estimators_)], strict=True):
        votes[learner.member_] += alpha
    return {
        "classes": classes,
        "labels": labels.tolist(),
        "predictions": predictions.T.tolist(),
        "votes": votes.tolist(),
        "boosted": model.predict(predictions).tolist(),
    }


def main() -> None:
    json.dump([boosted(*pool, seed) for seed, pool in enumerate(POOLS)], sys.stdout)
    print()


if __name__ == "__main__":
    main()
