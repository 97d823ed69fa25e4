#!/usr/bin/env python3
"""The greedy and the pruned soup of a pool of text classifiers, by the mean of accuracy and F1 and by Matthews' correlation.

What `judged_torch.py --kind text` does, with the recipes and metrics for which text classifiers of imbalanced classes are
known. Prints the same JSON object, with four reports.
"""

import json

from judged_torch import parser_of, run

RECIPES = ["greedy", "pruned"]
METRICS = ["accuracy+binary-f1", "matthews"]


def main() -> None:
    arguments = parser_of(__doc__.splitlines()[0]).parse_args()
    arguments.recipe = arguments.recipe or RECIPES
    arguments.metric = arguments.metric or METRICS
    print(json.dumps(run("text", arguments), indent=1))


if __name__ == "__main__":
    main()
