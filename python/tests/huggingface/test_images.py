"""Judges of images, against plain loops."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.torch

import pyarrow as pa
import pyarrow.parquet as pq
from tiny import NAMES, PREPROCESSOR, clip, gradients_of, images, padded, pixels_of, vit
from torch.nn.functional import cross_entropy, normalize

from soup_judge.transformers import __main__ as command


def features_of(answer):
    """In transformers 5 there is more around them."""
    return getattr(answer, "pooler_output", answer)


def test_image_classification(opened, tmp_path):
    model = vit()
    source, pictures, labels = images(tmp_path / "data.parquet", names=NAMES)
    session = opened(["image-classification"], model, source, preprocessor=json.dumps(PREPROCESSOR))
    with torch.inference_mode():
        expected = model(pixel_values=pixels_of(pictures)).logits
    torch.testing.assert_close(session.logits(7), expected)
    losses = cross_entropy(expected.double(), labels, reduction="none")
    np.testing.assert_allclose(session.losses(7), losses.numpy(), rtol=1e-5)

    gradient = session.gradient(7, tmp_path / "gradient")
    cross_entropy(model(pixel_values=pixels_of(pictures)).logits, labels, reduction="sum").backward()
    expected = gradients_of(model, tmp_path / "expected")
    assert expected.keys() == gradient.keys()
    for name, each in expected.items():
        torch.testing.assert_close(gradient[name], each, rtol=1e-3, atol=1e-5)


def test_classes_are_compared_by_name(opened, tmp_path, refused):
    model = vit()
    options = {"preprocessor": json.dumps(PREPROCESSOR)}
    source, _, labels = images(tmp_path / "same.parquet", names=NAMES)
    session = opened(["image-classification"], model, source, **options)
    assert not session.client.survey.notes
    source, _, labels = images(tmp_path / "other.parquet", names=["Owl", "cat", "DOG"])
    session = opened(["image-classification"], model, source, **options)
    told = [label for block in session.blocks(7) for label in block.outcomes.labels]
    assert told == [[2, 0, 1][label] for label in labels.tolist()]
    assert "renumbered" in session.client.survey.notes[0]
    with refused.request("no class, or several, called fox", "cat, dog, owl"):
        opened(
            ["image-classification"], model, images(tmp_path / "x.parquet", names=["cat", "fox", "owl"])[0], **options
        )


def test_images_that_cannot_be_judged(opened, tmp_path, refused):
    source, *_ = images(tmp_path / "data.parquet")
    preprocessor = json.dumps(PREPROCESSOR)
    start = ["image-classification"]
    with refused.request("no preprocessor_config.json"):
        opened(start, vit(), source)
    with refused.request("--image-column", "image, label"):
        opened(start, vit(), source, preprocessor=preprocessor, options={"image-column": "picture"})
    with refused.request("there is no nowhere"):
        opened(start, vit(), "nowhere", preprocessor=preprocessor)
    with refused.request("does not know the option colour"):
        opened(start, vit(), source, preprocessor=preprocessor, options={"colour": "x"})
    with refused.request("code of its own"):
        opened(start, vit(), source, preprocessor=preprocessor, config={"auto_map": {"AutoConfig": "x.Y"}})
    with refused.request("config.json", "no-such-model"):
        opened(start, vit(), source, preprocessor=preprocessor, config={"model_type": "no-such-model"})
    with refused.request("problem_type regression"):
        opened(start, vit(), source, preprocessor=preprocessor, config={"problem_type": "regression"})
    with refused.request("lacks classifier.bias"):
        drop = {"change": lambda arrays: {n: a for n, a in arrays.items() if n != "classifier.bias"}}
        opened(start, vit(), source, preprocessor=preprocessor, **drop)
    pq.write_table(pa.table({"image": [b"no image"], "label": [0]}), tmp_path / "broken.parquet")
    with refused.request("the first image"):
        opened(start, vit(), tmp_path / "broken.parquet", preprocessor=preprocessor)
    pq.write_table(pa.table({"image": [b"x"], "label": [-1]}), tmp_path / "unlabelled.parquet")
    with refused.request("row 0 is -1"):
        opened(start, vit(), tmp_path / "unlabelled.parquet", preprocessor=preprocessor)


def test_running_statistics_of_a_resnet(opened, tmp_path):
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        num_labels=3,
        layer_type="basic",
        id2label=dict(enumerate(NAMES)),
    )
    model = transformers.ResNetForImageClassification(config).eval()
    source, pictures, _ = images(tmp_path / "data.parquet", names=NAMES)
    session = opened(["image-classification"], model, source, preprocessor=json.dumps(PREPROCESSOR))
    with torch.inference_mode():
        torch.testing.assert_close(session.logits(7), model(pixel_values=pixels_of(pictures)).logits)


def test_clip_by_prompts(opened, tokenizer, tmp_path, refused):
    model = clip()
    prompts = {
        "cat": ["a photo of the cat", "the cat"],
        "dog": ["a photo of the dog"],
        "owl": ["owl", "a owl", "the owl"],
    }
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    source, pictures, labels = images(tmp_path / "data.parquet", names=NAMES)
    start = ["clip-zero-shot", "--tokenizer", tokenizer, "--prompts", tmp_path / "prompts.json"]
    session = opened(start, model, source, preprocessor=json.dumps(PREPROCESSOR))

    def logits():
        classes = []
        for texts in prompts.values():
            encoded = padded(tokenizer, texts)
            features = features_of(model.get_text_features(encoded["input_ids"], encoded["attention_mask"]))
            classes.append(normalize(normalize(features, dim=-1).mean(dim=0), dim=-1))
        features = normalize(features_of(model.get_image_features(pixels_of(pictures))), dim=-1)
        return features @ torch.stack(classes).T * model.logit_scale.exp()

    torch.testing.assert_close(session.logits(7), logits().detach(), rtol=1e-4, atol=1e-4)
    gradient = session.gradient(7, tmp_path / "gradient")
    cross_entropy(logits(), labels, reduction="sum").backward()
    for name, each in gradients_of(model, tmp_path / "expected").items():
        torch.testing.assert_close(gradient[name], each, rtol=1e-2, atol=1e-4)
    with refused.request("fox"):
        source, *_ = images(tmp_path / "x.parquet", names=["cat", "dog", "fox"])
        opened(start, model, source, preprocessor=json.dumps(PREPROCESSOR))
    (tmp_path / "prompts.json").write_text('{"cat": []}')
    with pytest.raises(SystemExit, match="list of texts for each class"):
        command.judge_of(command.parser().parse_args([str(each) for each in start]))


@pytest.mark.parametrize("bias", [True, False])
def test_clip_with_a_linear_head(opened, tmp_path, refused, bias):
    model = clip()
    head = torch.nn.Linear(10, 3, bias=bias)
    source, pictures, _ = images(tmp_path / "data.parquet")

    def headed(arrays):
        own = {f"classification_head.{name}": tensor.detach().numpy() for name, tensor in head.named_parameters()}
        return {**arrays, **own}

    session = opened(["clip-linear"], model, source, preprocessor=json.dumps(PREPROCESSOR), change=headed)
    with torch.inference_mode():
        expected = head(normalize(features_of(model.get_image_features(pixels_of(pictures))), dim=-1))
    torch.testing.assert_close(session.logits(7), expected)
    assert "does not use logit_scale, text_model" in session.client.survey.notes[0].replace(
        "text_projection.weight, ", ""
    )
    with refused.request("no matrix classification_head.weight"):
        opened(["clip-linear"], model, source, preprocessor=json.dumps(PREPROCESSOR))
