#!/usr/bin/env python3
"""Averages a pool without data, beside plain reads and writes of the same bytes and beside mergekit-pytorch.

    tests/averages/compare.sh [FOLDER [cold]]

makes a pool of eight checkpoints of the shape of ViT-B/16 (346 MB each) in FOLDER and prints seconds and peak memory of each,
in turns, and the ratios of the medians: read from the page cache, or with "cold" from the disk. Needs numpy and safetensors, and mergekit where it is to be compared with; see compare.sh.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time

import numpy
from safetensors.numpy import load_file, save_file

INGREDIENTS = 8
ROUNDS = 3
THREADS = 2
PIECE = 1 << 20


def shapes():
    hidden, wide = 768, 3072
    shapes = {
        "vit.embeddings.cls_token": (1, 1, hidden),
        "vit.embeddings.position_embeddings": (1, 197, hidden),
        "vit.embeddings.patch_embeddings.projection.weight": (hidden, 3, 16, 16),
        "vit.embeddings.patch_embeddings.projection.bias": (hidden,),
        "vit.layernorm.weight": (hidden,),
        "vit.layernorm.bias": (hidden,),
        "classifier.weight": (1000, hidden),
        "classifier.bias": (1000,),
    }
    dense = {
        "attention.attention.query": (hidden, hidden),
        "attention.attention.key": (hidden, hidden),
        "attention.attention.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (wide, hidden),
        "output.dense": (hidden, wide),
        "layernorm_before": (hidden,),
        "layernorm_after": (hidden,),
    }
    for layer in range(12):
        for name, shape in dense.items():
            shapes[f"vit.encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"vit.encoder.layer.{layer}.{name}.bias"] = shape[:1]
    return shapes


def make_pool(folder):
    """Random checkpoints around one; returns their files."""
    random = numpy.random.default_rng(1)
    files = [f"{folder}/pool/m{index:02}.safetensors" for index in range(INGREDIENTS)]
    if not all(os.path.exists(f) for f in files):
        os.makedirs(f"{folder}/pool", exist_ok=True)
        base = {n: random.standard_normal(s, numpy.float32) / 50 for n, s in shapes().items()}
        for file in files:
            near = {n: v + random.standard_normal(v.shape, numpy.float32) / 500 for n, v in base.items()}
            save_file(near, file, metadata={"format": "pt"})
    return files


def plain(files, to):
    """Reads all files on so many threads, piece by piece, and writes the bytes of one."""

    def read(mine):
        piece = bytearray(PIECE)
        for file in mine:
            with open(file, "rb", buffering=0) as f:
                while f.readinto(piece):
                    pass

    threads = [threading.Thread(target=read, args=(files[i::THREADS],)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size, piece = os.path.getsize(files[0]), bytes(PIECE)
    with open(to, "wb", buffering=0) as f:
        for at in range(0, size, PIECE):
            f.write(piece[: min(PIECE, size - at)])
        os.fsync(f.fileno())
    os.remove(to)


def evict(files):
    """Takes files out of the page cache."""
    for file in files:
        with open(file, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(command):
    """Seconds, and peak memory in MB."""
    before = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command} failed: {process.stderr.read().decode()[-2000:]}")
    return time.monotonic() - before, usage.ru_maxrss / 1000


def main():
    soupctl, folder = sys.argv[1:3]
    cold = sys.argv[3:] == ["cold"]
    files = make_pool(folder)
    soup, merged = f"{folder}/soup", f"{folder}/merged"
    cook = [soupctl, "cook", "--pool", f"{folder}/pool", "--recipe", "uniform", "--output", soup, "--quiet"]
    cook += ["--workers", str(THREADS), "--threads", "1", "--fresh"]
    mergekit = shutil.which("mergekit-pytorch")
    config = f"{folder}/merge.yaml"
    with open(config, "w") as f:
        models = [{"model": file, "parameters": {"weight": 1 / INGREDIENTS}} for file in files]
        json.dump({"merge_method": "linear", "dtype": "float32", "models": models}, f)
    programs = {
        "soupctl": cook + ["--diagnose", "none"],
        "soupctl with geometry": cook,
    }
    if mergekit:
        programs["mergekit-pytorch"] = [mergekit, config, merged]
    times = {name: [] for name in ["plain reads and writes", *programs]}
    peaks = {}
    for _ in range(ROUNDS):
        if cold:
            evict(files)
        before = time.monotonic()
        plain(files, f"{folder}/plain")
        times["plain reads and writes"].append(time.monotonic() - before)
        for name, command in programs.items():
            shutil.rmtree(merged if name == "mergekit-pytorch" else soup, ignore_errors=True)
            if cold:
                evict(files)
            seconds, peak = run(command)
            times[name].append(seconds)
            peaks[name] = max(peaks.get(name, 0), peak)
    base = statistics.median(times["plain reads and writes"])
    print(f"{INGREDIENTS} ingredients of {os.path.getsize(files[0]) / 1e6:.0f} MB, {THREADS} threads, {ROUNDS} rounds")
    for name, all_times in times.items():
        median = statistics.median(all_times)
        peak = f"{peaks[name]:6.0f} MB" if name in peaks else ""
        shown = ", ".join(f"{t:.2f}" for t in all_times)
        print(f"{name:24} {median:6.2f} s ({shown})  {base / median:5.2f} of plain  {peak}")
    own = load_file(f"{soup}/model.safetensors")
    # What was written is the mean, rounded once.
    for name in ("vit.encoder.layer.7.output.dense.weight", "classifier.bias"):
        mean = sum(load_file(f)[name].astype(numpy.float64) for f in files) / INGREDIENTS
        assert numpy.array_equal(own[name], mean.astype(numpy.float32)), name
    print("the mean is exact")


main()
