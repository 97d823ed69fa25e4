"""A session from its beginning to its end, and everything that goes wrong on the way."""

import gc
import math
import re
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from helpers import Differentiable, Scripted, example, gradient_file

import soup_judge
from soup_judge._wire import judge_pb2 as wire

mlp = example("mlp")


def test_a_session_gives_what_the_model_gives(serving, perceptron):
    client = serving(mlp.Perceptron())
    survey = client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    assert (list(survey.samples), survey.classes) == ([40], 3)
    client.load("s", 1, perceptron.soup)
    positions = [39, 0, 7, 8, 9]
    blocks = client.judge("s", 1, 0, positions, block_samples=2, logits=True)
    assert [block.block for block in blocks] == [0, 1, 2]
    assert [len(block.outcomes.labels) for block in blocks] == [2, 2, 1]

    _, logits = mlp.forward(perceptron.arrays, perceptron.x[positions])
    told = np.concatenate([np.frombuffer(block.logits, "<f4").reshape(-1, 3) for block in blocks])
    np.testing.assert_allclose(told, logits, rtol=1e-5)
    assert [label for b in blocks for label in b.outcomes.labels] == perceptron.y[positions].tolist()
    assert [p for b in blocks for p in b.outcomes.predictions] == logits.argmax(axis=1).tolist()
    expected = [
        math.log(sum(math.exp(v) for v in row)) - row[y] for row, y in zip(logits, perceptron.y[positions], strict=True)
    ]
    np.testing.assert_allclose([loss for b in blocks for loss in b.outcomes.losses], expected, rtol=1e-5)
    assert client.progress == ["reading validation"]
    assert client.judge("s", 1, 0, []) == []


def test_it_says_who_it_is(serving, refused):
    client = serving(mlp.Perceptron())
    told = client.describe()
    assert (told.protocol, told.version, list(told.abilities)) == (1, "1", ["logits", "gradients"])
    assert re.fullmatch("[0-9a-f]{64}", told.digest)
    assert told.numerics.startswith("numpy-")
    with refused.request("version 1", "not 2"):
        client.describe(protocol=2)


def test_logits_come_only_when_asked_for(serving, perceptron, scripted, refused):
    client = serving(mlp.Perceptron())
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    client.load("s", 1, perceptron.soup)
    assert client.judge("s", 1, 0, [0])[0].logits == b""
    with refused.request("logits"):
        scripted().judge("s", 1, 0, [0], logits=True)


def test_what_is_not_known_any_more_is_opened_again(scripted, perceptron, refused):
    client = scripted()
    with refused.forgotten("other"):
        client.load("other", 1, perceptron.soup)
    with refused.forgotten("generation 2"):
        client.judge("s", 2, 0, [0])
    client.release("s", 1)
    with refused.forgotten("generation 1"):
        client.judge("s", 1, 0, [0])
    client.release("s", 1)
    client.release("never", 5)
    client.load("s", 2, perceptron.soup)
    client.open("t", perceptron.pool.tensors, [perceptron.dataset])
    with refused.forgotten("session s"):
        client.judge("s", 2, 0, [0])
    with refused.forgotten("generation 2"):
        client.judge("t", 2, 0, [0])


def test_requests_that_cannot_be_met(scripted, perceptron, refused):
    client = scripted()
    with refused.request("dataset 1 is unknown"):
        client.judge("s", 1, 1, [0])
    with refused.request("validation has no sample 10", "it has 10"):
        client.judge("s", 1, 0, [3, 10])
    with refused.request("no sample 18446744073709551615"):
        client.judge("s", 1, 0, [2**64 - 1])
    with refused.request("at least one sample"):
        client.judge("s", 1, 0, [0], block_samples=0)
    with refused.request("generation 1 is loaded already"):
        client.load("s", 1, perceptron.soup)
    with refused.request("count from 1"):
        client.load("s", 0, perceptron.soup)
    with refused.request("at least one dataset"):
        client.open("t", perceptron.pool.tensors, [])


def test_options_are_declared_or_refused(serving, perceptron, refused):
    judge = Scripted()
    client = serving(judge)
    dataset = soup_judge.Dataset("validation", "x", {"split": "test", "colour": "red"})
    with refused.request("validation", "colour, split", "it knows none"):
        client.open("s", perceptron.pool.tensors, [dataset])
    judge.dataset_options = ["split"]
    with refused.request("colour", "it knows split"):
        client.open("s", perceptron.pool.tensors, [dataset])
    judge.dataset_options = ["split", "colour"]
    client.open("s", perceptron.pool.tensors, [dataset])
    with refused.request("class_subset"):
        client.open("s", perceptron.pool.tensors, [dataset], class_subset=True)


def test_a_subset_of_classes(serving, perceptron, tmp_path):
    perceptron.y[:] = np.where(perceptron.y == 1, 2, perceptron.y)
    np.savez(tmp_path / "validation.npz", x=perceptron.x, y=perceptron.y)
    client = serving(mlp.Perceptron())
    client.open("s", perceptron.pool.tensors, [perceptron.dataset], class_subset=True)
    client.load("s", 1, perceptron.soup)
    predictions = {p for b in client.judge("s", 1, 0, range(40)) for p in b.outcomes.predictions}
    assert predictions == {0, 2}


def test_two_generations_at_a_time(serving, perceptron):
    client = serving(mlp.Perceptron())
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    other = {name: -array for name, array in perceptron.arrays.items()}
    client.load("s", 1, perceptron.soup)
    client.load("s", 2, perceptron.pool.write("other", other))
    first, second = (client.judge("s", generation, 0, range(40)) for generation in (1, 2))
    assert first != second
    client.release("s", 1)
    client.load("s", 3, perceptron.soup)
    assert client.judge("s", 2, 0, range(40)) == second
    assert client.judge("s", 3, 0, range(40)) == first


def mappings_of(path):
    return Path("/proc/self/maps").read_text().count(str(path))


def test_release_lets_go_of_the_file(serving, perceptron):
    class Cyclic(Scripted):
        def load(self, tensors):
            model = {name: tensors[name] for name in tensors}
            model["self"] = model
            return model

    client = serving(Cyclic())
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    gc.disable()
    try:
        for release in (
            lambda: client.release("s", 1),
            lambda: client.open("s", perceptron.pool.tensors, [perceptron.dataset]),
        ):
            client.load("s", 1, perceptron.soup)
            client.judge("s", 1, 0, [1])
            assert mappings_of(perceptron.soup) == 1
            release()
            assert mappings_of(perceptron.soup) == 0
    finally:
        gc.enable()


def test_who_keeps_a_view_of_a_forgotten_soup_is_told(serving, perceptron, capfd):
    class Keeps(mlp.Perceptron):
        kept = None

        def load(self, tensors):
            Keeps.kept = Keeps.kept if Keeps.kept is not None else tensors["output.bias"]
            return super().load(tensors)

    client = serving(Keeps())
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    for generation in (1, 2):
        client.load("s", generation, perceptron.soup)
    client.release("s", 2)
    with pytest.raises(grpc.RpcError) as error:
        client.release("s", 1)
    assert "copy what has to stay" in error.value.details()
    assert "copy what has to stay" in capfd.readouterr().err
    Keeps.kept = None


def test_release_waits_for_who_computes(scripted):
    begun, go_on = threading.Event(), threading.Event()

    def judge(self, model, dataset, positions):
        begun.set()
        assert go_on.wait(10)
        assert model == "model"
        zeros = np.zeros(len(positions), int)
        return soup_judge.Outcomes(zeros, zeros, zeros + 0.5)

    client = scripted(judge=judge)
    judging = threading.Thread(target=client.judge, args=("s", 1, 0, [0]))
    judging.start()
    assert begun.wait(10)
    releasing = threading.Thread(target=client.release, args=("s", 1))
    releasing.start()
    releasing.join(0.2)
    assert releasing.is_alive()
    go_on.set()
    releasing.join(10)
    judging.join(10)
    assert not releasing.is_alive()


def test_one_thread_runs_the_judge(serving, perceptron):
    judge = Scripted()
    client = serving(judge)
    for session in ("s", "t"):
        client.open(session, perceptron.pool.tensors, [perceptron.dataset])
        client.load(session, 1, perceptron.soup)
        client.judge(session, 1, 0, range(10), block_samples=1)
    assert judge.threads == {"judge"}


def test_progress_comes_while_the_judge_computes(scripted):
    def judge(self, model, dataset, positions):
        self.progress("block of\n many lines")
        time.sleep(0.05)
        return soup_judge.Outcomes([0], [0], [0.5])

    client = scripted(judge=judge)
    client.judge("s", 1, 0, [0, 1], block_samples=1)
    assert set(client.progress) == {"block of many lines"}


def test_progress_of_a_judge_that_nobody_asks(capsys):
    Scripted().progress("alone")


def test_nobody_waits_any_more(serving, perceptron):
    blocks = []

    def judge(self, model, dataset, positions):
        blocks.append(positions)
        time.sleep(0.05)
        return soup_judge.Outcomes([0], [0], [0.5])

    client = serving(Scripted(judge=judge))
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    client.load("s", 1, perceptron.soup)
    request = wire.JudgeRequest(session="s", generation=1, dataset=0, positions=[0] * 1000, block_samples=1)
    call = client._stub.Judge(request)
    next(iter(call))
    call.cancel()
    # The next call is answered as soon as the block is done.
    client.judge("s", 1, 0, [1], block_samples=1)
    assert len(blocks) < 20


def test_a_load_that_nobody_waits_for_leaves_nothing(serving, perceptron, refused):
    go_on = threading.Event()
    client = serving(Scripted(load=lambda self, tensors: go_on.wait(10) and "model"))
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    call = client._stub.Load(wire.LoadRequest(session="s", generation=1, path=str(perceptron.soup)))
    time.sleep(0.1)
    call.cancel()
    time.sleep(0.1)
    go_on.set()
    with refused.forgotten("generation 1"):
        client.judge("s", 1, 0, [0])


def test_a_worker_that_reads_slowly_holds_the_judge_up(serving, perceptron):
    judged = []

    def judge(self, model, dataset, positions):
        judged.append(1)
        rows = np.zeros((1, 2), np.float32)
        return soup_judge.Outcomes.from_logits(rows, [0])

    client = serving(Scripted(judge=judge))
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    client.load("s", 1, perceptron.soup)
    request = wire.JudgeRequest(session="s", generation=1, dataset=0, positions=[0] * 50_000, block_samples=1)
    call = client._stub.Judge(request)
    next(iter(call))
    time.sleep(0.5)
    seen = len(judged)
    call.cancel()
    assert seen < 50_000


def test_faults_of_the_judge_reach_the_worker_with_their_type(scripted, serving, perceptron, refused, capfd):
    def judge(self, model, dataset, positions):
        raise ZeroDivisionError("a b" * 3000)

    with refused.fault("ZeroDivisionError: a ba b"):
        scripted(judge=judge).judge("s", 1, 0, [0])
    assert "Traceback" in capfd.readouterr().err

    client = serving(Scripted(open=lambda *_: sys.exit(3)))
    with refused.fault("SystemExit: 3"):
        client.open("s", perceptron.pool.tensors, [perceptron.dataset])

    def unknown(self, schema, datasets):
        raise soup_judge.Refused(f"no dataset {datasets[0].source}, näher")

    client = serving(Scripted(open=unknown))
    with refused.request("no dataset", "näher"):
        client.open("s", perceptron.pool.tensors, [perceptron.dataset])


def test_soups_that_are_not_the_runs(scripted, perceptron, refused, tmp_path):
    client = scripted(load=False)
    arrays = dict(perceptron.arrays)
    arrays["other"] = arrays.pop("hidden.bias")
    with refused.request("missing hidden.bias", "unknown other (F32 [8])"):
        client.load("s", 1, perceptron.pool.write("renamed", arrays))
    with refused.fault("FileNotFoundError"):
        client.load("s", 1, tmp_path / "nothing")


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT])
def test_differentiating_needs_the_ability(scripted, tmp_path, code):
    client = scripted()
    with pytest.raises(grpc.RpcError) as raised:
        client.differentiate("s", 1, 0, [0], tmp_path / "g", soup_judge.Loss())
    assert raised.value.code() is code


def test_gradients_add_up_in_the_workers_file(serving, perceptron, tmp_path):
    client = serving(mlp.Perceptron())
    client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    client.load("s", 1, perceptron.soup)
    elements = sum(tensor.elements for tensor in perceptron.pool.tensors)
    loss = soup_judge.Loss(beta=1.25, label_smoothing=0.1, scale=1 / 40)
    whole = client.differentiate("s", 1, 0, range(40), gradient_file(tmp_path, elements), loss, block_samples=40)
    at_once = np.fromfile(tmp_path / "gradient", "<f4")
    parts = client.differentiate("s", 1, 0, range(40), gradient_file(tmp_path, elements), loss, block_samples=7)
    in_parts = np.fromfile(tmp_path / "gradient", "<f4")
    np.testing.assert_allclose(in_parts, at_once, atol=1e-6)
    assert (whole.total, whole.correct) == (parts.total, parts.correct) == (40, whole.correct)
    assert whole.loss == pytest.approx(parts.loss) and whole.d_beta == pytest.approx(parts.d_beta)

    def value(arrays, beta=1.25):
        _, logits = mlp.forward({name: a.astype(np.float64) for name, a in arrays.items()}, perceptron.x)
        return soup_judge.Loss(beta, 0.1, 1 / 40).of_logits(logits, perceptron.y).loss

    assert whole.loss == pytest.approx(value(perceptron.arrays), rel=1e-6)
    step = 1e-5
    slope = (value(perceptron.arrays, 1.25 + step) - value(perceptron.arrays, 1.25 - step)) / (2 * step)
    assert whole.d_beta == pytest.approx(slope, rel=1e-4)
    begin = 0
    for tensor in perceptron.pool.tensors:
        nudged = []
        for sign in (1, -1):
            arrays = {name: a.astype(np.float64) for name, a in perceptron.arrays.items()}
            arrays[tensor.name].flat[0] += sign * step
            nudged.append(value(arrays))
        assert at_once[begin] == pytest.approx((nudged[0] - nudged[1]) / (2 * step), rel=1e-3, abs=1e-6)
        begin += tensor.elements


def test_tensors_without_a_gradient_keep_zeros(scripted, tmp_path):
    gradients = {"output.bias": np.array([1.0, 2.0, 3e300])}
    client = scripted(Differentiable, differentiate=soup_judge.Gradient(0.0, 0.0, 1, gradients))
    elements = 8 * 5 + 8 + 3 * 8 + 3
    client.differentiate("s", 1, 0, [0, 1], gradient_file(tmp_path, elements), soup_judge.Loss(), block_samples=1)
    # By name: hidden.bias, hidden.weight, output.bias, output.weight.
    expected = np.zeros(elements, "<f4")
    expected[48:51] = [2, 4, np.inf]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "gradient", "<f4"), expected)


def test_gradients_that_cannot_be_taken(scripted, tmp_path, refused):
    client = scripted(Differentiable)
    with refused.request("has 12 bytes", "75 elements"):
        client.differentiate("s", 1, 0, [0], gradient_file(tmp_path, 3), soup_judge.Loss())
    with refused.request("label smoothing 1.5"):
        client.differentiate("s", 1, 0, [0], gradient_file(tmp_path, 75), soup_judge.Loss(label_smoothing=1.5))
