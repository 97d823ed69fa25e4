"""The greedy and the pruned soup, over any pool and any function that scores a soup.

The rules are soupctl's defaults. Greedy takes candidates best first and makes one pass; pruned starts from all, takes them
worst first and makes two. Ties keep pool order, and a trial is kept when it scores at least what the soup so far does.
Nothing is scored twice.
"""

from collections.abc import Callable

from soups import Pool, StateDict, sha256_of, soup_of
from tallies import Metric, Tally

Score = Callable[[StateDict], Tally]
PASSES = {"greedy": 1, "pruned": 2}


class Ledger:
    """All scores of a pool's soups: those that are known, and any other when it is asked for."""

    def __init__(
        self,
        pool: Pool,
        score: Score,
        finish: Callable[[StateDict, frozenset[str]], StateDict] = lambda soup, members: soup,
    ):
        """`finish` makes a soup of the mean of its members."""
        self.pool = pool
        self.score = score
        self.finish = finish
        self.tallies: dict[frozenset[str], Tally] = {}

    def tally(self, members: frozenset[str]) -> Tally:
        if members not in self.tallies:
            self.tallies[members] = self.score(self.soup(members))
        return self.tallies[members]

    def soup(self, members: frozenset[str]) -> StateDict:
        return self.finish(soup_of(self.pool, members), members)

    def in_pool_order(self, members: frozenset[str]) -> list[str]:
        return [name for name in self.pool if name in members]

    def ranking(self) -> list[tuple[str, Tally]]:
        """Every ingredient alone, in pool order."""
        return [(name, self.tally(frozenset([name]))) for name in self.pool]


def cook(ledger: Ledger, recipe: str, metric: Metric) -> dict[str, object]:
    """A report with soupctl's names (`soupctl cook -o json`), as far as it goes, and confusion matrices besides."""
    ranking = ledger.ranking()
    order = metric.sorted(ranking, best_first=recipe == "greedy")
    start = frozenset(order[:1] if recipe == "greedy" else ledger.pool)
    soup, trials = walk(ledger, recipe, order, start, metric)
    best = metric.sorted(ranking, best_first=True)[0]
    return {
        "recipe": recipe,
        "metric": metric.name,
        "ingredients": ledger.in_pool_order(soup),
        "score": ledger.tally(soup).figures(metric),
        "baselines": {
            "best_single": {"ingredients": [best], **ledger.tally(frozenset([best])).figures(metric)},
            "uniform": {"ingredients": list(ledger.pool), **ledger.tally(frozenset(ledger.pool)).figures(metric)},
        },
        "ranking": [{"ingredient": name, **tally.figures(metric)} for name, tally in ranking],
        "order": order,
        "trials": trials,
        "sha256": sha256_of(ledger.soup(soup)),
    }


def walk(
    ledger: Ledger, recipe: str, order: list[str], soup: frozenset[str], metric: Metric
) -> tuple[frozenset[str], list[dict[str, object]]]:
    """Tries to replace the soup by one with a candidate more, or one less. Returns the last one and all trials."""
    trials = []
    bar = ledger.tally(soup)
    for number in range(1, PASSES[recipe] + 1):
        changed = False
        for candidate in order:
            if (candidate in soup) == (recipe == "greedy"):
                continue
            trial = soup ^ {candidate}
            if not trial:
                return soup, trials
            tally = ledger.tally(trial)
            accepted = metric.accepts(tally, bar)
            trials.append({
                "ingredients": ledger.in_pool_order(trial),
                "candidate": candidate,
                "pass": number,
                **tally.figures(metric),
                "bar": metric.value(bar),
                "verdict": "accepted" if accepted else "rejected",
            })
            if accepted:
                soup, bar, changed = trial, tally, True
        if not changed:
            break
    return soup, trials
