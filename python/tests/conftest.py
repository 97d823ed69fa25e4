"""What tests share: judges behind real sockets, and what they are asked about."""

from contextlib import ExitStack
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from helpers import Pool, Scripted

import soup_judge
from soup_judge.client import Client


@pytest.fixture
def serving(tmp_path):
    """Serves judges until the test ends; gives clients."""
    with ExitStack() as stack:
        counter = iter(range(100))

        def serve(judge):
            path = tmp_path / f"judge {next(counter)}.sock"
            stack.enter_context(soup_judge.Server(judge, path))
            return stack.enter_context(Client(path, timeout=20))

        yield serve


@pytest.fixture
def refused():
    """Expects a call to fail; gives what with."""

    class Refused:
        def __init__(self, code, *texts):
            self.code, self.texts = code, texts

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            assert isinstance(error, grpc.RpcError), error
            assert error.code() is self.code, (error.code(), error.details())
            for text in self.texts:
                assert text in error.details(), error.details()
            return True

    return SimpleNamespace(
        request=lambda *texts: Refused(grpc.StatusCode.INVALID_ARGUMENT, *texts),
        forgotten=lambda *texts: Refused(grpc.StatusCode.FAILED_PRECONDITION, *texts),
        fault=lambda *texts: Refused(grpc.StatusCode.UNKNOWN, *texts),
    )


@pytest.fixture
def perceptron(tmp_path):
    """Tensors and data of the example: 40 samples of 3 classes."""
    random = np.random.default_rng(7)
    arrays = {
        "hidden.weight": random.normal(size=(8, 5)).astype(np.float32),
        "hidden.bias": random.normal(size=8).astype(np.float32),
        "output.weight": random.normal(size=(3, 8)).astype(np.float32),
        "output.bias": random.normal(size=3).astype(np.float32),
    }
    x, y = random.normal(size=(40, 5)).astype(np.float32), random.integers(0, 3, 40)
    np.savez(tmp_path / "validation.npz", x=x, y=y)
    pool = Pool(tmp_path, arrays)
    return SimpleNamespace(
        arrays=arrays,
        x=x,
        y=y,
        pool=pool,
        soup=pool.write("soup", arrays),
        dataset=soup_judge.Dataset("validation", str(tmp_path / "validation.npz")),
    )


@pytest.fixture
def scripted(serving, perceptron):
    """A client of a scripted judge with an open session "s" and generation 1."""

    def begin(cls=Scripted, *, load=True, **scripts):
        client = serving(cls(**scripts))
        client.open("s", perceptron.pool.tensors, [perceptron.dataset])
        if load:
            client.load("s", 1, perceptron.soup)
        return client

    return begin
