#!/usr/bin/env python3
"""How fast a soup is judged through the judge of `python/`, beside the same loop in one PyTorch process.

A ViT (by default of the size of ViT-B/16) of random parameters on random images. A judge is started as a worker does it
and asked as one asks it, about blocks of a batch; the loop has the same pixels in memory and takes the same figures from
the logits. Both in turn, in the same minutes, on as many threads; the best round of each counts.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python/src"))

import soup_judge
from soup_judge.client import Client
from soup_judge.tensors import read_schema


def write(folder: Path, arguments: argparse.Namespace) -> None:
    """A model, its configuration, and images."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.width // 64,
        intermediate_size=4 * arguments.width,
        num_labels=10,
    )
    model = ViTForImageClassification(config)
    save_file(model.state_dict(), folder / "soup.safetensors")
    config.save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    random = np.random.default_rng(0)
    rows = []
    for label in range(arguments.samples):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": label % 10})
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")


def loop_of(folder: Path, arguments: argparse.Namespace):
    """The loop, with everything in memory."""
    model = ViTForImageClassification(ViTConfig.from_pretrained(folder)).eval()
    model.load_state_dict(load_file(folder / "soup.safetensors"))
    processor = ViTImageProcessor.from_pretrained(folder)
    table = pq.read_table(folder / "data.parquet").to_pylist()
    images = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in table]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    labels = torch.tensor([row["label"] for row in table])

    @torch.inference_mode()
    def loop() -> int:
        correct = 0
        for at in range(0, len(labels), arguments.batch_size):
            logits = model(pixel_values=pixels[at : at + arguments.batch_size]).logits
            these = labels[at : at + arguments.batch_size]
            torch.nn.functional.cross_entropy(logits.double(), these, reduction="none").tolist()
            correct += int((logits.argmax(dim=-1) == these).sum())
        return correct

    return loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments)
        loop = loop_of(folder, arguments)
        socket = folder / "judge.sock"
        command = [sys.executable, "-m", "soup_judge.transformers", "image-classification", "--socket", str(socket)]
        path = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])
        judge = subprocess.Popen([*command, "--threads", str(arguments.threads)], env=os.environ | {"PYTHONPATH": path})
        try:
            while not socket.exists():
                time.sleep(0.1)
            print(json.dumps(measure(folder, socket, loop, arguments)))
        finally:
            judge.terminate()
            judge.wait()


def measure(folder: Path, socket: Path, loop, arguments: argparse.Namespace) -> dict[str, object]:
    """Seconds of the best round of each, and their ratio."""
    seconds: dict[str, list[float]] = {"judge": [], "loop": []}
    with Client(socket, timeout=600) as client:
        client.open(
            "s",
            read_schema(folder / "soup.safetensors"),
            [soup_judge.Dataset("validation", str(folder / "data.parquet"))],
            config=(folder / "config.json").read_text(),
            preprocessor=(folder / "preprocessor_config.json").read_text(),
            batch_size=arguments.batch_size,
        )
        client.load("s", 1, folder / "soup.safetensors")

        def judged() -> int:
            positions = range(arguments.samples)
            blocks = client.judge("s", 1, 0, positions, block_samples=arguments.batch_size)
            pairs = [p for b in blocks for p in zip(b.outcomes.labels, b.outcomes.predictions, strict=True)]
            return sum(label == prediction for label, prediction in pairs)

        # Once for images that are decoded and caches that fill.
        counts = {judged(), loop()}
        for _ in range(arguments.rounds):
            for what, run in (("judge", judged), ("loop", loop)):
                begun = time.perf_counter()
                counts.add(run())
                seconds[what].append(time.perf_counter() - begun)
    if len(counts) > 1:
        raise SystemExit(f"they count differently: {sorted(counts)}")
    best = {what: min(rounds) for what, rounds in seconds.items()}
    return {
        "correct": counts.pop(),
        "samples": arguments.samples,
        "seconds": {what: round(took, 3) for what, took in best.items()},
        "rounds": {what: [round(took, 3) for took in rounds] for what, rounds in seconds.items()},
        "judge_over_loop": round(best["judge"] / best["loop"], 4),
    }


if __name__ == "__main__":
    main()
