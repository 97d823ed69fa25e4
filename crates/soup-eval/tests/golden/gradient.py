"""Makes the golden file of the gradient tests with PyTorch and transformers (2.15 and 4.57 when it was checked in).

    pip install torch "transformers<5" safetensors pyarrow Pillow && python gradient.py [time]

gradient.safetensors   for every CASE, of the example pool: the gradient in f64 of the mean loss over the first rows of
                       its validation set, with respect to the parameters laid end to end by name
    CASE/sample    f32, every STRIDE-th element of it
    CASE/norm      f64, Euclidean norm of every tensor's part, by name
    CASE/sum       f64, sum of the elements of every tensor's part, by name
    CASE/scalars   f64, [loss, derivative with respect to beta]
    CASE/alpha     f64, of the uniform soup: the product of the gradient with each ingredient, in pool order

`time` prints how long forward and backward take instead, in f32.
"""
import io
import pathlib
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

HERE = pathlib.Path(__file__).resolve().parent
POOL = HERE.parents[3] / "tests" / "pools" / "vit-fashion"
STRIDE = 37
# name: (model, rows, beta, label smoothing)
CASES = {
    "uniform": ("uniform", 64, 1.0, 0.0),
    "uniform_smoothed": ("uniform", 64, 1.3, 0.1),
    "m10": ("m10", 64, 1.0, 0.0),
    "m10_smoothed": ("m10", 64, 1.3, 0.1),
    # What the learned soup begins with.
    "start": ("uniform", 250, 1.0, 0.0),
}


def ingredients():
    return [load_file(path) for path in sorted((POOL / "ingredients").glob("*.safetensors"))]


def weights(name):
    if name != "uniform":
        return load_file(POOL / "ingredients" / f"{name}.safetensors")
    pool = ingredients()
    return {n: (sum(i[n].double() for i in pool) / len(pool)).float() for n in pool[0]}


def samples(rows):
    table = pq.read_table(POOL / "data" / "val.parquet").slice(0, rows).to_pylist()
    images = [np.array(Image.open(io.BytesIO(row["image"]["bytes"])))[:, :, None] for row in table]
    processor = ViTImageProcessor.from_pretrained(POOL)
    pixels = processor(images, return_tensors="pt", input_data_format="channels_last").pixel_values
    return pixels, torch.tensor([row["label"] for row in table])


def model_of(name, dtype):
    # Eager attention: plain operations, as the definition has them.
    config = ViTConfig.from_pretrained(POOL, attn_implementation="eager")
    model = ViTForImageClassification(config).eval()
    model.load_state_dict(weights(name))
    return model.to(dtype)


def gradient(model, pixels, labels, beta, smoothing):
    """Loss, its derivative with respect to beta, and name -> gradient."""
    dtype = next(model.parameters()).dtype
    beta = torch.tensor(beta, dtype=dtype, requires_grad=True)
    logits = model(pixel_values=pixels.to(dtype)).logits
    loss = torch.nn.functional.cross_entropy(beta * logits, labels, label_smoothing=smoothing)
    model.zero_grad()
    loss.backward()
    parameters = sorted(model.named_parameters())
    return loss.item(), beta.grad.item(), {n: p.grad.double().flatten() for n, p in parameters}


def flat(gradients):
    return torch.cat(list(gradients.values()))


def golden():
    out = {}
    for case, (name, rows, beta, smoothing) in CASES.items():
        pixels, labels = samples(rows)
        loss, d_beta, exact = gradient(model_of(name, torch.float64), pixels, labels, beta, smoothing)
        out[f"{case}/sample"] = flat(exact)[::STRIDE].float()
        out[f"{case}/norm"] = torch.stack([g.norm() for g in exact.values()])
        out[f"{case}/sum"] = torch.stack([g.sum() for g in exact.values()])
        out[f"{case}/scalars"] = torch.tensor([loss, d_beta], dtype=torch.float64)
        if name == "uniform":
            products = [sum((i[n].double().flatten() @ g) for n, g in exact.items()) for i in ingredients()]
            out[f"{case}/alpha"] = torch.stack(products)
        _, _, single = gradient(model_of(name, torch.float32), pixels, labels, beta, smoothing)
        error = max(float((single[n] - g).norm() / g.norm()) for n, g in exact.items() if "key.bias" not in n)
        print(f"{case}: loss {loss:.6f}, PyTorch's f32 is off by at most {error:.1e} of a tensor's norm")
    save_file(out, HERE / "gradient.safetensors")


def measure():
    pixels, labels = samples(256)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for attention in ("eager", "sdpa"):
            model = model_of("m10", torch.float32)
            model.set_attn_implementation(attention)
            for rows in (32, 256):
                x, y = pixels[:rows], labels[:rows]
                forward, both = [], []
                # The best of twenty: others share the machine.
                for _ in range(20):
                    started = time.perf_counter()
                    with torch.no_grad():
                        model(pixel_values=x)
                    middle = time.perf_counter()
                    loss = torch.nn.functional.cross_entropy(model(pixel_values=x).logits, y)
                    model.zero_grad()
                    loss.backward()
                    forward.append(middle - started)
                    both.append(time.perf_counter() - middle)
                print(
                    f"{threads} threads, {attention}, batch {rows}: "
                    f"forward {min(forward) * 1e3:.1f} ms, with backward {min(both) * 1e3:.1f} ms"
                )


measure() if sys.argv[1:] == ["time"] else golden()
