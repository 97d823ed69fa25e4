"""The example as the judge of a real cook: the soup is that of a loop over numpy arrays. SOUPCTL names the binary."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SOUPCTL = os.environ.get("SOUPCTL", "")
EXAMPLE = Path(__file__).parent.parent / "examples" / "mlp.py"
INGREDIENTS = 7

pytestmark = pytest.mark.skipif(not SOUPCTL, reason="SOUPCTL does not name the binary")


def forward(model, x):
    hidden = np.maximum(x @ model["hidden.weight"].T + model["hidden.bias"], 0)
    return hidden @ model["output.weight"].T + model["output.bias"]


@pytest.fixture
def kitchen(tmp_path):
    """A pool of perceptrons that were one, and samples that that one labelled, one in five wrongly."""
    random = np.random.default_rng(3)
    shapes = {"hidden.weight": (12, 6), "hidden.bias": (12,), "output.weight": (4, 12), "output.bias": (4,)}
    origin = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, samples in [("validation", 300), ("test", 200)]:
        x = random.normal(size=(samples, 6)).astype(np.float32)
        y = forward(origin, x).argmax(1)
        wrong = random.random(samples) < 0.2
        y[wrong] = random.integers(0, 4, int(wrong.sum()))
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    (tmp_path / "pool").mkdir()
    pool = {}
    for number in range(INGREDIENTS):
        noise = 0.2 + 0.12 * number
        arrays = {n: (a + noise * random.normal(size=a.shape)).astype(np.float32) for n, a in origin.items()}
        save_file(arrays, tmp_path / "pool" / f"m{number}.safetensors")
        pool[f"m{number}"] = arrays
    return tmp_path, pool


def cook(folder, *arguments):
    judge = f"mlp=cmd:exec {sys.executable} {EXAMPLE}"
    command = [SOUPCTL, "cook", "--pool", "pool", "--judge", judge, "--validation", "validation.npz", "--fresh"]
    command += ["--test", "other=test.npz", "--output", "soup", "--overwrite", "--quiet", "-o", "json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def mean(pool, members):
    """As the paper says, and rounded as soupctl does: sums in the order of the pool, in f64, one rounding."""
    first = pool[members[0]]
    return {n: (sum(pool[m][n].astype(np.float64) for m in members) / len(members)).astype(np.float32) for n in first}


def test_greedy_is_that_of_a_loop(kitchen):
    folder, pool = kitchen
    with np.load(folder / "validation.npz") as file:
        x, y = file["x"], file["y"]

    def correct(members):
        return int((forward(mean(pool, sorted(members)), x).argmax(1) == y).sum())

    ranking = sorted(pool, key=lambda name: (-correct([name]), name))
    chosen, best, trials = [ranking[0]], correct([ranking[0]]), []
    for candidate in ranking[1:]:
        counted = correct([*chosen, candidate])
        trials.append((candidate, counted))
        if counted >= best:
            chosen, best = [*chosen, candidate], counted
    for workers, evaluate in [("1", "full"), ("2", "full"), ("1", "early"), ("2", "early")]:
        result = cook(folder, "--workers", workers, "--evaluate", evaluate)
        found = [(trial["candidate"], trial.get("correct")) for trial in result["trials"]]
        # A trial that was certain to fail has no count.
        wanted = [(name, found_count and count) for (name, count), (_, found_count) in zip(trials, found, strict=True)]
        assert found == wanted
        assert evaluate == "early" or None not in dict(found).values()
        assert result["ingredients"] == sorted(chosen)
        assert result["score"]["correct"] == best
    assert 1 < len(chosen) < INGREDIENTS
    written = load_file(folder / "soup" / "model.safetensors")
    expected = mean(pool, sorted(chosen))
    assert all((written[name] == expected[name]).all() for name in expected)


def test_learned_weights_go_through_the_judge(kitchen):
    folder, _ = kitchen
    arguments = ["--recipe", "learned", "--epochs", "8", "--mini-batch", "50", "--lr", "0.3"]
    first, again = cook(folder, *arguments), cook(folder, *arguments, "--workers", "2")
    losses = [step["loss"] for step in first["learned"]["steps"]]
    assert losses[-1] < losses[0]
    assert first["sha256"] == again["sha256"]
    assert first["learned"] == again["learned"]
