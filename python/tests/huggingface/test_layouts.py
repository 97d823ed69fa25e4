"""Where transformers puts the tensors of a file: names that change, tensors that are split and joined."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.torch

from tiny import NAMES, PREPROCESSOR, TEXTS, WORDS, bert, gradients_of, images, lines, padded, pixels_of
from torch.nn.functional import cross_entropy

import soup_judge
from soup_judge.transformers.base import VERSION
from soup_judge.transformers.probing import layout_of

five = pytest.mark.skipif(VERSION == 4, reason="transformers 4 has the files' names")


def mixture(**options):
    """A classifier of texts with experts, which files have one by one."""
    config = transformers.MixtralConfig(
        vocab_size=len(WORDS),
        hidden_size=12,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=11,
        pad_token_id=0,
        **options,
    )
    return transformers.MixtralForSequenceClassification(config).eval()


def test_experts_that_files_have_one_by_one(opened, tokenizer, tmp_path):
    model = mixture()
    labels = [1, 0, 0, 1, 0, 1, 0, 1]
    source = lines(tmp_path / "v.jsonl", TEXTS, labels)
    session = opened(["sequence-classification", "--tokenizer", tokenizer], model, source)
    assert "model.layers.0.block_sparse_moe.experts.10.w1.weight" in {tensor.name for tensor in session.pool.tensors}
    encoded = {name: each for name, each in padded(tokenizer, TEXTS).items() if name != "token_type_ids"}
    with torch.inference_mode():
        torch.testing.assert_close(session.logits(8), model(**encoded).logits)
    gradient = session.gradient(8, tmp_path / "gradient")
    cross_entropy(model(**encoded).logits, torch.tensor(labels), reduction="sum").backward()
    expected = gradients_of(model, tmp_path / "expected")
    assert expected.keys() == gradient.keys()
    for name, each in expected.items():
        torch.testing.assert_close(gradient[name], each, rtol=1e-3, atol=1e-5)


def test_layers_that_files_have_in_one(opened, tmp_path):
    config = transformers.Dinov2Config(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        use_swiglu_ffn=True,
        id2label=dict(enumerate(NAMES)),
    )
    model = transformers.Dinov2ForImageClassification(config).eval()
    source, pictures, labels = images(tmp_path / "data.parquet", names=NAMES)
    session = opened(["image-classification"], model, source, preprocessor=json.dumps(PREPROCESSOR))
    assert "dinov2.encoder.layer.0.mlp.weights_in.weight" in {tensor.name for tensor in session.pool.tensors}
    with torch.inference_mode():
        torch.testing.assert_close(session.logits(7), model(pixel_values=pixels_of(pictures)).logits)
    gradient = session.gradient(7, tmp_path / "gradient")
    cross_entropy(model(pixel_values=pixels_of(pictures)).logits, labels, reduction="sum").backward()
    for name, each in gradients_of(model, tmp_path / "expected").items():
        torch.testing.assert_close(gradient[name], each, rtol=1e-3, atol=1e-5)


@five
def test_tensors_that_are_not_the_models(opened, tokenizer, tmp_path, refused):
    start = ["sequence-classification", "--tokenizer", tokenizer]
    source = lines(tmp_path / "v.jsonl", TEXTS, [0, 1] * 4)
    expert = "model.layers.1.block_sparse_moe.experts.3.w1.weight"

    def without(name):
        return lambda arrays: {each: array for each, array in arrays.items() if name not in each}

    with refused.request("gate_up_proj of [10, 40, 12] instead of [11, 40, 12]"):
        opened(start, mixture(), source, change=without(".1.block_sparse_moe.experts.3."))
    with refused.request("model.layers.1.mlp.experts.gate_up_proj do not fit together, or one is missing"):
        opened(start, mixture(), source, change=without(expert))
    with refused.request("lacks score.weight"):
        opened(start, mixture(), source, change=without("score.weight"))
    with refused.request("does not know other"):
        opened(start, mixture(), source, change=lambda arrays: {**arrays, "other": np.zeros(3, np.float32)})
    with refused.request("score.weight of [3, 12] instead of [2, 12]"):
        wide = {"change": lambda arrays: {**arrays, "score.weight": np.zeros((3, 12), np.float32)}}
        opened(start, mixture(), source, **wide)
    # Two tensors of the file for one of the model, and only one of them would count.
    with refused.request("does not know bert.encoder.layer.0.output.LayerNorm."):
        twice = "bert.encoder.layer.0.output.LayerNorm.weight"
        opened(start, bert(), source, change=lambda a: {**a, twice.replace("weight", "gamma"): a[twice] + 1})


@five
def test_a_head_that_is_apart_although_the_model_ties_it(opened, tokenizer, tmp_path):
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=12, n_layer=1, n_head=2, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    (tmp_path / "v.txt").write_text("\n".join(TEXTS) + "\n")
    start = ["causal-perplexity", "--tokenizer", tokenizer]

    def apart(arrays):
        return {**arrays, "lm_head.weight": arrays["transformer.wte.weight"] * 2}

    session = opened(start, model, tmp_path / "v.txt", change=apart)
    assert "lm_head.weight" in session.client.survey.notes[0] and "apart" in session.client.survey.notes[0]
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 2)
    nll = 0.0
    for text in TEXTS:
        ids = padded(tokenizer, [text])["input_ids"]
        with torch.inference_mode():
            nll += cross_entropy(model(ids).logits[0, :-1].double(), ids[0, 1:], reduction="sum").item()
    assert sum(block.sums.values[0] for block in session.blocks(8)) == pytest.approx(nll, rel=1e-5)


def laid_out(shapes, made):
    """The layout of a module whose tensors `made` makes of those of a file."""

    def load(probes):
        model = torch.nn.Module()
        for name, tensor in made(dict(probes)).items():
            model.register_buffer(name, tensor)
        return model, {"missing_keys": set(), "mismatched_keys": set()}

    tensors = [soup_judge.Tensor(name, "F32", shape) for name, shape in shapes.items()]
    return layout_of(load, tensors, lambda text: None), tensors


@pytest.mark.parametrize(
    "made",
    [
        lambda t: {"x": t["a"], "y": t["b"]},
        lambda t: {"x": t["b"].transpose(0, 1).contiguous(), "y": t["a"]},
        lambda t: {"x": torch.cat([t["a"], t["b"]]), "z": torch.tensor(7.0)},
        lambda t: {"x": torch.stack([t["b"], t["a"]], dim=1)},
        lambda t: {"x": t["a"][:2], "y": t["a"][2:], "z": t["b"]},
        lambda t: {"x": torch.stack([t["a"], t["b"]], dim=1).reshape(12, 6)},  # rows in turn
        lambda t: {"x": t["a"].reshape(3, 2, 6).transpose(0, 1).reshape(6, 6), "y": t["b"].reshape(2, 3, 1, 6)},
        lambda t: {"x": t["b"][:, ::2], "y": t["b"][:, 1::2], "z": t["b"], "w": t["a"].flatten()},
    ],
    ids=["same", "transposed", "joined", "stacked", "split", "in turn", "permuted", "twice"],
)
def test_layouts_are_those_of_what_was_loaded(made):
    layout, tensors = laid_out({"a": (6, 6), "b": (6, 6)}, made)
    values = {tensor.name: torch.randn(tensor.shape) for tensor in tensors}
    expected = made(values)
    expected.pop("z", None) if expected.get("z", torch.zeros(1)).ndim == 0 else None
    assert layout.keys() == expected.keys()
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in values.items()}
    weights = {name: torch.randn(tensor.shape) for name, tensor in expected.items()}
    sum((made(leaves)[name] * weight).sum() for name, weight in weights.items()).backward()
    found = {}
    for name, slot in layout.items():
        assert torch.equal(slot.made(values), expected[name])
        slot.add_gradient(weights[name].numpy(), found, {tensor.name: tensor.shape for tensor in tensors})
    for name, leaf in leaves.items():
        np.testing.assert_allclose(found[name], leaf.grad.numpy(), rtol=1e-6)


def test_what_is_changed_is_not_there():
    shapes = {"a": (6, 6), "b": (6, 6)}
    layout, _ = laid_out(shapes, lambda t: {"x": t["a"] + 1, "y": t["b"] * 0.5, "z": t["a"]})
    assert layout.keys() == {"z"}


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda t: {"x": t["a"][torch.tensor([0, 3, 1, 5, 2, 4])]}, "no regular order"),
        (lambda t: {"x": t["a"].flip(0)}, "in reverse order"),
        (lambda t: {"x": t["a"] + 0.5}, "changed"),
        (lambda t: {"x": t["a"] + 2}, "changed"),
        (lambda t: {"x": t["a"] * torch.arange(1.0, 7)}, "a part of it is of no tensor"),
        (lambda t: {"x": torch.cat([t["a"], torch.zeros(1, 6)])}, "a part of it is of no tensor"),
        (lambda t: {"x": t["a"][:5]}, "only a part of a"),
        (lambda t: {"x": t["a"][:1].repeat(6, 1), "y": t["a"][1:]}, "repeats elements of a in x"),
        (lambda t: {"x": torch.where(torch.eye(6) > 0, t["a"], t["b"])}, "no boxes"),
        (lambda t: {"x": t["a"].half()}, "it is torch.float16 there"),
    ],
)
def test_what_cannot_be_followed_is_refused(made, text):
    with pytest.raises(soup_judge.Refused, match=text):
        laid_out({"a": (6, 6), "b": (6, 6)}, made)
