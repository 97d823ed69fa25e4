"""Short product reviews and whether they come out positive, made up by rule.

A review has one to three clauses of known strength. What follows a "but" counts double, a "not" turns a clause around and
weakens it, and a review is positive when the sum is above zero. That is more than a bag of words knows, and little
enough to be learned from some hundred examples. Half of the clauses of held-out reviews do not occur in training.
"""

import random
from dataclasses import dataclass

NAMES = ["negative", "positive"]

ASPECTS = [
    "the battery", "the screen", "the keyboard", "delivery", "the manual", "support", "the strap", "the lens", "the price",
    "the packaging", "the finish", "the app", "the handle", "setup", "the sound", "the fabric",
]
# By strength; the first half of each is for training, all of them for held-out reviews.
CLAUSES = {
    3: ["is superb", "is outstanding", "blew me away", "could not be better", "is the best I have had", "exceeds every hope"],
    2: ["works very well", "is a pleasure", "is excellent", "is well thought out", "does its job beautifully", "is lovely"],
    1: ["is fine", "is decent", "does the job", "is better than I feared", "holds up", "is all right"],
    -1: ["is a bit dull", "takes getting used to", "is nothing special", "is on the slow side", "feels dated", "is so-so"],
    -2: ["is disappointing", "is poor", "keeps failing", "is not what was promised", "is a nuisance", "lets it down"],
    -3: ["is dreadful", "broke within a day", "is useless", "could not be worse", "made me send it back", "is a disgrace"],
}
# What can be said with a "not" in front, and how strong it is without.
QUALITIES = {
    2: ["impressive", "reliable", "good", "convincing", "sturdy", "clear"],
    -2: ["bad", "cheap", "annoying", "flimsy", "noisy", "confusing"],
}


@dataclass(frozen=True)
class Review:
    text: str
    label: int


class Writer:
    """Writes reviews; all that it writes follows from the seed."""

    def __init__(self, seed: int, held_out: bool):
        self.random = random.Random(seed)
        self.held_out = held_out

    def of(self, phrases: list[str]) -> str:
        return self.random.choice(phrases if self.held_out else phrases[: len(phrases) // 2])

    def clause(self, aspect: str) -> tuple[str, int]:
        """A clause about an aspect, and its strength."""
        if self.random.random() < 0.25:
            strength = self.random.choice(list(QUALITIES))
            quality = self.of(QUALITIES[strength])
            negated = self.random.random() < 0.5
            return (f"{aspect} is not {quality}", -strength // 2) if negated else (f"{aspect} is {quality}", strength)
        strength = self.random.choice(list(CLAUSES))
        return f"{aspect} {self.of(CLAUSES[strength])}", strength

    def review(self) -> Review:
        one, two, three = self.random.sample(ASPECTS, 3)
        (a, x), (b, y), (c, z) = (self.clause(aspect) for aspect in (one, two, three))
        text, strength = self.random.choice([
            (a, x),
            (f"{a} and {b}", x + y),
            (f"{a}, but {b}", x + 2 * y),
            (f"although {a}, {b}", x + 2 * y),
            (f"{a}, even if {b}", 2 * x + y),
            (f"{a}; {b}, and {c}", x + y + z),
            (f"{a}. {b[0].upper()}{b[1:]}, but {c}", x + y + 2 * z),
        ])
        return Review(text[0].upper() + text[1:] + self.random.choice([".", ".", "!", ""]), int(strength > 0))

    def reviews(self, count: int, positive: float = 0.5, wrong: float = 0.0) -> list[Review]:
        """So many different ones, of which about a share `positive` is, and a share `wrong` has the other label."""
        found: dict[str, Review] = {}
        while len(found) < count:
            review = self.review()
            if self.random.random() < (positive if review.label else 1 - positive):
                label = review.label ^ (self.random.random() < wrong)
                found.setdefault(review.text, Review(review.text, label))
        return list(found.values())
