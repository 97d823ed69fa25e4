"""Judges of PyTorch against plain loops."""

import gc
from pathlib import Path

import numpy as np
import pytest
from helpers import Pool, example

import soup_judge

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from soup_judge._wire import judge_pb2 as wire
from soup_judge.binding import Binding, torch_view
from soup_judge.check.__main__ import main as check
from soup_judge.torch import Arithmetic, Classifier, Samples


def perceptron(schema=None):
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))


def batch_normed(schema=None):
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 4))


class Tied(torch.nn.Module):
    def __init__(self, schema=None):
        super().__init__()
        self.first = torch.nn.Linear(6, 6, bias=False)
        self.second = torch.nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)) * self.scale)


def in_memory(dataset):
    if dataset.source != "random":
        raise soup_judge.Refused(f"no dataset {dataset.source}")
    generator = torch.Generator().manual_seed(5)
    return Samples(torch.randn(50, 6, generator=generator), np.arange(50) % 4)


def arrays_of(module):
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def schema_of(arrays):
    return soup_judge.Schema(tuple(Pool(None, arrays).tensors))


@pytest.fixture
def opened(serving, tmp_path):
    """A session with generation 1: the client, the module that the soup was taken from, and its pool."""

    def open_(factory, change=lambda arrays: arrays, **options):
        torch.manual_seed(1)
        module = factory().eval()
        arrays = change(arrays_of(module))
        pool = Pool(tmp_path, arrays)
        client = serving(Classifier(factory, in_memory, classes=options.pop("classes", 4), **options))
        client.open("s", pool.tensors, [soup_judge.Dataset("validation", "random")])
        soup = pool.write("soup", arrays)
        client.load("s", 1, soup)
        return client, module, pool, soup

    return open_


def logits_of(blocks, classes=4):
    return np.concatenate([np.frombuffer(block.logits, "<f4").reshape(-1, classes) for block in blocks])


def test_logits_are_those_of_a_plain_loop(opened):
    client, module, _, _ = opened(perceptron)
    samples = in_memory(soup_judge.Dataset("v", "random"))
    blocks = client.judge("s", 1, 0, range(50), block_samples=16, logits=True)
    with torch.inference_mode():
        expected = torch.cat([module(samples.inputs[begin : begin + 16]) for begin in range(0, 50, 16)])
    assert (logits_of(blocks) == expected.numpy()).all()
    losses = torch.nn.functional.cross_entropy(expected.double(), torch.from_numpy(samples.labels), reduction="none")
    np.testing.assert_allclose([loss for block in blocks for loss in block.outcomes.losses], losses.numpy(), rtol=1e-12)


def test_gradients_are_those_of_autograd(opened, tmp_path):
    client, module, pool, _ = opened(perceptron)
    elements = sum(tensor.elements for tensor in pool.tensors)
    (tmp_path / "gradient").write_bytes(bytes(4 * elements))
    loss = soup_judge.Loss(beta=1.5, label_smoothing=0.2, scale=0.1)
    told = client.differentiate("s", 1, 0, range(20), tmp_path / "gradient", loss, block_samples=8)
    samples = in_memory(soup_judge.Dataset("v", "random"))
    beta = torch.tensor(1.5, requires_grad=True)
    expected = 0.1 * torch.nn.functional.cross_entropy(
        beta * module(samples.inputs[:20]), torch.from_numpy(samples.labels[:20]), label_smoothing=0.2, reduction="sum"
    )
    expected.backward()
    assert told.loss == pytest.approx(expected.item(), rel=1e-5)
    assert told.d_beta == pytest.approx(beta.grad.item(), rel=1e-4)
    gradients = dict(module.named_parameters())
    flat = np.concatenate([gradients[tensor.name].grad.numpy().ravel() for tensor in pool.tensors])
    np.testing.assert_allclose(np.fromfile(tmp_path / "gradient", "<f4"), flat, rtol=1e-4, atol=1e-6)


def checked(factory, tmp_path, capsys):
    """What the checks print of a judge of such modules, which passes them."""
    arrays = arrays_of(factory())
    soup = Pool(tmp_path, arrays).write("soup", arrays)
    with soup_judge.Server(Classifier(factory, in_memory, classes=4), tmp_path / "socket"):
        assert check([str(tmp_path / "socket"), "--weights", str(soup), "--source", "random"]) == 0, capsys.readouterr()
    return capsys.readouterr().out


def test_it_passes_the_checks(tmp_path, capsys):
    assert "18 passed" in checked(perceptron, tmp_path, capsys)


def test_nothing_is_copied_and_release_lets_go(opened):
    client, _, _, soup = opened(perceptron)
    client.judge("s", 1, 0, range(10))
    gc.disable()
    try:
        assert Path("/proc/self/maps").read_text().count(str(soup)) == 1
        client.release("s", 1)
        assert Path("/proc/self/maps").read_text().count(str(soup)) == 0
    finally:
        gc.enable()


def test_views_share_the_files_memory(tmp_path):
    import ml_dtypes

    from soup_judge.tensors import open_tensors

    arrays = {"w": np.ones((2, 3), np.float32), "b": np.array([1.5, -2.0], ml_dtypes.bfloat16), "n": np.array(3)}
    tensors = open_tensors(Pool(tmp_path, arrays).write("soup", arrays))
    assert torch_view(tensors, "w").data_ptr() == tensors["w"].ctypes.data
    assert torch_view(tensors, "b").tolist() == [1.5, -2.0] and torch_view(tensors, "b").dtype is torch.bfloat16
    assert torch_view(tensors, "n").item() == 3


def test_soups_of_bf16_are_widened(opened):
    import ml_dtypes

    client, module, _, _ = opened(
        perceptron, lambda arrays: {n: a.astype(ml_dtypes.bfloat16) for n, a in arrays.items()}
    )
    blocks = client.judge("s", 1, 0, range(50), block_samples=50, logits=True)
    rounded = perceptron()
    rounded.load_state_dict({name: tensor.bfloat16().float() for name, tensor in module.state_dict().items()})
    with torch.inference_mode():
        expected = rounded(in_memory(soup_judge.Dataset("v", "random")).inputs)
    assert (logits_of(blocks) == expected.numpy()).all()


def test_arithmetic_of_bf16(opened):
    client, module, _, _ = opened(perceptron, arithmetic=Arithmetic(dtype="bf16"))
    assert client.describe().numerics.endswith("-cpu-bf16")
    blocks = client.judge("s", 1, 0, range(50), block_samples=50, logits=True)
    with torch.inference_mode():
        expected = module.bfloat16()(in_memory(soup_judge.Dataset("v", "random")).inputs.bfloat16()).float()
    assert (logits_of(blocks) == expected.numpy()).all()


def test_tensors_that_are_not_the_modules(serving, refused):
    arrays = arrays_of(perceptron())
    arrays["other"] = arrays.pop("2.bias")
    client = serving(Classifier(perceptron, in_memory, classes=4))
    with refused.request("lacks 2.bias", "does not know other"):
        client.open("s", Pool(None, arrays).tensors, [soup_judge.Dataset("v", "random")])
    arrays = arrays_of(perceptron())
    arrays["0.bias"] = arrays["0.bias"][:7]
    with refused.request("0.bias of [7] instead of [16]"):
        client.open("s", Pool(None, arrays).tensors, [soup_judge.Dataset("v", "random")])


def test_running_statistics_are_as_they_are_in_the_soup(opened):
    def older(arrays):
        return {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}

    for change in (older, lambda arrays: arrays):
        client, module, _, _ = opened(batch_normed, change)
        blocks = client.judge("s", 1, 0, range(50), block_samples=50, logits=True)
        with torch.inference_mode():
            expected = module(in_memory(soup_judge.Dataset("v", "random")).inputs)
        assert (logits_of(blocks) == expected.numpy()).all()


def recomputing(tensors):
    return [soup_judge.Tensor(t.name, t.dtype, t.shape, t.is_statistic) for t in tensors]


def statistics_file(tmp_path, tensors):
    path = tmp_path / "statistics"
    path.write_bytes(bytes(sum(4 * t.elements for t in tensors if t.is_statistic)))
    return path


@pytest.mark.parametrize("samples", [50, 32, 40])
def test_statistics_are_recomputed_as_update_bn_does(opened, tmp_path, samples):
    client, module, pool, soup = opened(batch_normed)
    inputs = in_memory(soup_judge.Dataset("v", "random")).inputs
    client.open("t", recomputing(pool.tensors), [soup_judge.Dataset("v", "random")])
    path = statistics_file(tmp_path, pool.tensors)
    for generation in (1, 2):
        request = wire.Recompute(dataset=0, samples=samples, block_samples=16, path=str(path))
        client.load("t", generation, soup, recompute=request)
    blocks = client.judge("t", 1, 0, range(50), block_samples=50, logits=True)
    torch.optim.swa_utils.update_bn([inputs[at : min(at + 16, samples)] for at in range(0, samples, 16)], module)
    expected = np.concatenate([module[1].running_mean.numpy(), module[1].running_var.numpy()])
    np.testing.assert_allclose(np.fromfile(path, "<f4"), expected, rtol=1e-5, atol=1e-7)
    with torch.inference_mode():
        logits = module.eval()(inputs)
    np.testing.assert_allclose(logits_of(blocks), logits.numpy(), rtol=1e-4, atol=1e-5)
    # Nothing of it stays in the module: the same soup without it is what it was.
    client.open("u", pool.tensors, [soup_judge.Dataset("v", "random")])
    client.load("u", 1, soup)
    again = client.judge("u", 1, 0, range(50), block_samples=50, logits=True)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in read_arrays(soup).items()})
    with torch.inference_mode():
        assert (logits_of(again) == module(inputs).numpy()).all()


def read_arrays(path):
    return {name: array.copy() for name, array in soup_judge.tensors.open_tensors(path).items()}


def test_a_single_sample_has_no_variance(opened, tmp_path, refused):
    client, _, pool, soup = opened(batch_normed)
    client.open("t", recomputing(pool.tensors), [soup_judge.Dataset("v", "random")])
    path = statistics_file(tmp_path, pool.tensors)
    with refused.request("a block of 1 calibration samples has no variance", "--batch-size"):
        client.load("t", 1, soup, recompute=wire.Recompute(dataset=0, samples=17, block_samples=16, path=str(path)))
    with refused.request("has 50 samples: 51"):
        client.load("t", 1, soup, recompute=wire.Recompute(dataset=0, samples=51, block_samples=16, path=str(path)))


def test_statistics_of_other_layers_are_refused(opened, tmp_path, refused):
    def instance_normed(schema=None):
        return torch.nn.Sequential(
            torch.nn.Unflatten(1, (2, 3)),
            torch.nn.InstanceNorm1d(2, track_running_stats=True),
            torch.nn.Flatten(),
            torch.nn.Linear(6, 4),
        )

    client, _, pool, soup = opened(instance_normed)
    client.open("t", recomputing(pool.tensors), [soup_judge.Dataset("v", "random")])
    path = statistics_file(tmp_path, pool.tensors)
    with refused.request("of InstanceNorm1d, and only those of BatchNorm"):
        client.load("t", 1, soup, recompute=wire.Recompute(dataset=0, samples=50, block_samples=16, path=str(path)))


def test_normalised_models_pass_the_checks(tmp_path, capsys):
    assert "ok   load: running statistics are recomputed" in checked(batch_normed, tmp_path, capsys)


@pytest.mark.parametrize("kept", [["first.weight"], ["second.weight"], ["first.weight", "second.weight"]])
def test_tied_weights_may_be_there_once_or_twice(opened, tmp_path, kept):
    client, module, _, _ = opened(Tied, lambda arrays: {name: arrays[name] for name in kept}, classes=6)
    blocks = client.judge("s", 1, 0, range(50), block_samples=50, logits=True)
    inputs = in_memory(soup_judge.Dataset("v", "random")).inputs
    with torch.inference_mode():
        assert (logits_of(blocks, 6) == module(inputs).numpy()).all()
    (tmp_path / "gradient").write_bytes(bytes(4 * 36 * len(kept)))
    client.differentiate("s", 1, 0, range(50), tmp_path / "gradient", soup_judge.Loss(), block_samples=50)
    labels = torch.from_numpy(np.arange(50) % 4)
    torch.nn.functional.cross_entropy(module(inputs), labels, reduction="sum").backward()
    gradient = np.fromfile(tmp_path / "gradient", "<f4").reshape(-1, 6, 6).sum(axis=0)
    np.testing.assert_allclose(gradient, module.first.weight.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_tied_weights_have_to_be_equal(opened, refused):
    client, module, pool, _ = opened(Tied, classes=6)
    arrays = arrays_of(module)
    arrays["second.weight"] += 1
    with refused.request("ties first.weight and second.weight"):
        client.load("s", 2, pool.write("torn", arrays))
    with refused.request("lacks first.weight"):
        client.open("t", Pool(None, {"x": np.zeros(1)}).tensors, [soup_judge.Dataset("v", "random")])


def test_buffers_that_are_not_saved_may_be_there(tmp_path):
    module = Tied()
    binding = Binding(module, schema_of({**arrays_of(module), "scale": np.array(2.0, np.float32)}))
    assert binding.ignored == ["scale"]
    assert module.first.weight.device.type == "meta" and module.scale.item() == 2.0


def test_datasets_that_are_not_there(serving, refused):
    client = serving(Classifier(perceptron, in_memory, classes=4))
    with refused.request("no dataset other"):
        client.open("s", Pool(None, arrays_of(perceptron())).tensors, [soup_judge.Dataset("v", "other")])
    client = serving(Classifier(perceptron, in_memory, classes=3))
    with refused.request("3 classes"):
        client.open("s", Pool(None, arrays_of(perceptron())).tensors, [soup_judge.Dataset("v", "random")])


def test_arithmetic_that_there_is_not():
    with pytest.raises(SystemExit, match="tf32 needs"):
        Arithmetic(dtype="tf32").apply()
    with pytest.raises(SystemExit, match="no arithmetic f8"):
        Arithmetic(dtype="f8").apply()
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="no CUDA device"):
            Arithmetic(device="cuda").apply()


def test_the_example(serving, tmp_path):
    module = example("torch_classifier")
    torch.manual_seed(0)
    network = module.model(None)
    random = np.random.default_rng(0)
    np.savez(tmp_path / "v.npz", x=random.normal(size=(9, 1, 28, 28)), y=random.integers(0, 10, 9))
    pool = Pool(tmp_path, arrays_of(network))
    client = serving(Classifier(module.model, module.data, classes=10))
    client.open("s", pool.tensors, [soup_judge.Dataset("v", str(tmp_path / "v.npz"))])
    client.load("s", 1, pool.write("soup", arrays_of(network)))
    blocks = client.judge("s", 1, 0, range(9), logits=True)
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.load(tmp_path / "v.npz")["x"]).float())
    np.testing.assert_allclose(logits_of(blocks, 10), expected.numpy(), rtol=1e-5, atol=1e-6)
