"""Tiny models of random weights, their data, and sessions of judges that are asked about them."""

import io
import json

import numpy as np
import pytest

import soup_judge

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pa = pytest.importorskip("pyarrow")

import pyarrow.parquet as pq
from PIL import Image

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>", *"abcdefgh", "good", "bad", "not", "very", "film"]
WORDS += ["of", "the", "photo", "cat", "dog", "owl"]
NAMES = ["cat", "dog", "owl"]
TEXTS = [
    "a good film",
    "very bad",
    "not a good film",
    "the film",
    "a b c d e f g h",
    "good good",
    "bad",
    "not bad of the film",
]


def padded(tokenizer, *texts):
    return transformers.AutoTokenizer.from_pretrained(str(tokenizer))(
        *texts, padding=True, truncation=True, max_length=16, return_tensors="pt"
    )


def saved(model, folder):
    """What save_pretrained writes: the tensors by name, and the text of the config."""
    model.save_pretrained(folder)
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors"), (folder / "config.json").read_text()


def gradients_of(model, folder):
    """Gradients under the names of files: what save_pretrained makes of a model whose parameters they are."""
    import copy

    other = copy.deepcopy(model)
    with torch.no_grad():
        for one, parameter in zip(other.parameters(), model.parameters(), strict=True):
            one.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return {name: torch.from_numpy(array) for name, array in saved(other, folder)[0].items()}


class Session:
    def __init__(self, client, pool, soup):
        self.client, self.pool, self.soup = client, pool, soup

    def blocks(self, samples, **options):
        return self.client.judge("s", 1, 0, range(samples), **options)

    def logits(self, samples):
        blocks = self.blocks(samples, block_samples=3, logits=True)
        return torch.cat(
            [
                torch.frombuffer(bytearray(b.logits), dtype=torch.float32).view(len(b.outcomes.labels), -1)
                for b in blocks
            ]
        )

    def losses(self, samples):
        return [loss for block in self.blocks(samples, block_samples=3) for loss in block.outcomes.losses]

    def gradient(self, samples, path):
        path.write_bytes(bytes(4 * sum(tensor.elements for tensor in self.pool.tensors)))
        self.client.differentiate("s", 1, 0, range(samples), path, soup_judge.Loss(), block_samples=4)
        flat, found, begin = np.fromfile(path, "<f4"), {}, 0
        for tensor in self.pool.tensors:
            found[tensor.name] = torch.from_numpy(flat[begin : begin + tensor.elements].reshape(tensor.shape))
            begin += tensor.elements
        return found


def images(path, *, rows=7, names=None, size=24):
    """A Parquet file as Hugging Face datasets are exported, and its images."""
    random = np.random.default_rng(2)
    pictures, column = [], []
    for row in range(rows):
        pictures.append(random.integers(0, 256, (size + row, size, 3), np.uint8))
        stream = io.BytesIO()
        Image.fromarray(pictures[-1]).save(stream, "PNG")
        column.append({"bytes": stream.getvalue(), "path": None})
    labels = [row % 3 for row in range(rows)]
    table = pa.table({"image": column, "label": labels})
    if names:
        features = {
            "info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}
        }
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)
    return path, pictures, torch.tensor(labels)


PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 16, "width": 16},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 2,
}


def vit(**options):
    options = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}} | options
    config = transformers.ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        image_size=16,
        patch_size=8,
        **options,
    )
    return transformers.ViTForImageClassification(config).eval()


def pixels_of(pictures):
    kind = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)
    processor = kind(**{k: v for k, v in PREPROCESSOR.items() if k != "image_processor_type"})
    return processor(pictures, input_data_format="channels_last", return_tensors="pt")["pixel_values"]


def lines(path, *columns, names=("text", "label")):
    with path.open("w") as file:
        for row in zip(*columns, strict=True):
            file.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")
    return path


def bert(**options):
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        **options,
    )
    return transformers.BertForSequenceClassification(config).eval()


def t5(**options):
    config = transformers.T5Config(
        vocab_size=len(WORDS),
        d_model=12,
        d_kv=6,
        d_ff=20,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        **options,
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def clip():
    side = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    config = transformers.CLIPConfig(
        text_config={**side, "vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 4},
        vision_config={**side, "image_size": 16, "patch_size": 8},
        projection_dim=10,
    )
    return transformers.CLIPModel(config).eval()
