"""Judges of timm, open_clip, lm-evaluation-harness and JAX, with tiny models, against plain loops."""

import json

import numpy as np
import pytest
from helpers import Pool

import soup_judge

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def arrays_of(module):
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def opened(client, pool, soup, source, config=""):
    client.survey = client.open("s", pool.tensors, [soup_judge.Dataset("validation", source)], config=config)
    client.load("s", 1, soup)
    return client


def logits_of(client, samples):
    blocks = client.judge("s", 1, 0, range(samples), block_samples=3, logits=True)
    return np.concatenate([np.frombuffer(b.logits, "<f4").reshape(len(b.outcomes.labels), -1) for b in blocks])


def parquet_of_images(path, rows=5):
    import io

    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq
    from PIL import Image

    random = np.random.default_rng(4)
    pictures, column = [], []
    for _ in range(rows):
        pictures.append(Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)))
        stream = io.BytesIO()
        pictures[-1].save(stream, "PNG")
        column.append({"bytes": stream.getvalue()})
    pq.write_table(pa.table({"image": column, "label": [row % 3 for row in range(rows)]}), path)
    return pictures


def test_timm(serving, tmp_path, refused):
    timm = pytest.importorskip("timm")
    from soup_judge.timm import TimmClassifier

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    preprocessing = {
        "input_size": [3, 32, 32],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    config = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": preprocessing}
    arrays = arrays_of(model)
    pool = Pool(tmp_path, arrays)
    soup = pool.write("soup", arrays)
    pictures = parquet_of_images(tmp_path / "v.parquet")
    client = serving(TimmClassifier())
    opened(client, pool, soup, str(tmp_path / "v.parquet"), json.dumps(config))
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=preprocessing))
    with torch.inference_mode():
        expected = model(torch.stack([transform(picture) for picture in pictures]))
    np.testing.assert_allclose(logits_of(client, 5), expected.numpy(), rtol=1e-4, atol=1e-5)
    for change, text in (
        ({"architecture": "no_net"}, "no architecture 'no_net'"),
        ({"pretrained_cfg": {}}, "pretrained_cfg lacks"),
    ):
        with refused.request(text):
            opened(client, pool, soup, str(tmp_path / "v.parquet"), json.dumps(config | change))


def test_open_clip(serving, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    from soup_judge.open_clip import OpenClipZeroShot

    side = {"width": 32, "layers": 1}
    tiny = {
        "embed_dim": 16,
        "vision_cfg": {**side, "image_size": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {**side, "context_length": 16, "vocab_size": 49408, "heads": 2},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    prompts = {"cat": ["a photo of a cat", "a cat"], "dog": ["a dog"], "owl": ["an owl"]}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip").eval()
    arrays = arrays_of(model)
    pool = Pool(tmp_path, arrays)
    pictures = parquet_of_images(tmp_path / "v.parquet")
    client = serving(OpenClipZeroShot("tiny-clip", tmp_path / "prompts.json"))
    opened(client, pool, pool.write("soup", arrays), str(tmp_path / "v.parquet"))
    _, _, transform = open_clip.create_model_and_transforms("tiny-clip")
    tokenize = open_clip.get_tokenizer("tiny-clip")
    with torch.inference_mode():
        classes = []
        for texts in prompts.values():
            mean = model.encode_text(tokenize(texts), normalize=True).mean(dim=0)
            classes.append(mean / mean.norm())
        images = model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
        expected = images @ torch.stack(classes).T * model.logit_scale.exp()
    np.testing.assert_allclose(logits_of(client, 5), expected.numpy(), rtol=1e-4, atol=1e-4)
    with pytest.raises(SystemExit, match="open_clip knows"):
        OpenClipZeroShot("no-clip", tmp_path / "prompts.json")


def test_lm_eval(serving, tmp_path, refused):
    pytest.importorskip("lm_eval")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    from soup_judge.lm_eval import HarnessTask

    words = ["[PAD]", "[UNK]", "</s>", *"abcdefghij"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>", model_max_length=32
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    rows = [{"q": "a b c", "choices": ["d", "e f"], "answer": 0}, {"q": "e", "choices": ["g h", "i"], "answer": 1}] * 3
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "letters.yaml").write_text(
        "task: letters\ndataset_path: json\n"
        f"dataset_kwargs:\n  data_files:\n    validation: {tmp_path}/docs.jsonl\n"
        "output_type: multiple_choice\nvalidation_split: validation\nnum_fewshot: 0\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\n'
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
    torch.manual_seed(3)
    config = transformers.GPT2Config(vocab_size=len(words), n_embd=12, n_layer=2, n_head=2, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    arrays = {name: array for name, array in arrays_of(model).items() if name != "lm_head.weight"}
    pool = Pool(tmp_path, arrays)
    client = serving(HarnessTask(tmp_path / "tokenizer", include=tmp_path / "tasks"))
    opened(client, pool, pool.write("soup", arrays), "letters", config.to_json_string())
    assert list(client.survey.samples) == [6] and list(client.survey.figures.names) == ["acc"]
    hits = []
    for row in rows:
        scores = []
        for choice in row["choices"]:
            ids = torch.tensor([fast(f"{row['q']} {choice}")["input_ids"]])
            count = len(choice.split())
            with torch.inference_mode():
                told = model(ids).logits.log_softmax(dim=-1)[0, :-1].gather(-1, ids[0, 1:, None])
            scores.append(told[-count:].sum().item())
        hits.append(float(np.argmax(scores) == row["answer"]))
    blocks = client.judge("s", 1, 0, range(6), block_samples=1)
    assert [block.sums.values[0] for block in blocks] == hits
    assert client.judge("s", 1, 0, [1, 0, 5], block_samples=3)[0].sums.values[0] == hits[1] + hits[0] + hits[5]
    with refused.request("the task nothing"):
        opened(client, pool, tmp_path / "soup", "nothing", config.to_json_string())


def test_jax(serving, tmp_path, capsys, monkeypatch):
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from soup_judge.check.__main__ import main as check
    from soup_judge.jax import Classifier, Samples

    def apply(parameters, x):
        return jax.nn.relu(x @ parameters["w1"] + parameters["b1"]) @ parameters["w2"]

    def data(dataset):
        random = np.random.default_rng(1)
        return Samples(random.normal(size=(30, 5)).astype(np.float32), random.integers(0, 3, 30))

    random = np.random.default_rng(0)
    arrays = {"w1": random.normal(size=(5, 8)), "b1": random.normal(size=8), "w2": random.normal(size=(8, 3))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    pool = Pool(tmp_path, arrays)
    soup = pool.write("soup", arrays)
    judge = Classifier(apply, data, classes=3)
    client = opened(serving(judge), pool, soup, "anything")
    expected = apply({name: jnp.asarray(array) for name, array in arrays.items()}, data(None).inputs)
    np.testing.assert_allclose(logits_of(client, 30), np.asarray(expected), rtol=1e-5)
    with soup_judge.Server(
        Classifier(apply, data, classes=3, shapes={n: a.shape for n, a in arrays.items()}), tmp_path / "j"
    ):
        assert check([str(tmp_path / "j"), "--weights", str(soup), "--source", "x"]) == 0, capsys.readouterr().out
