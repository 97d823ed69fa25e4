"""Checkpoints of ViTs with 1.84 B parameters, and images of three classes.

    python pool.py FOLDER                three of zeros, in f32, as sparse files, and one image a class. See cook.sh
    python pool.py FOLDER noise          four of noise, in bf16, and eight images. See greedy.sh
    python pool.py FOLDER noise small    eight of 305 M parameters instead
"""

import json
import os
import random
import struct
import sys
import zlib

FOLDER, *KIND = sys.argv[1:]
NOISY, SMALL = KIND[:1] == ["noise"], KIND == ["noise", "small"]
HIDDEN, WIDE, LAYERS, PATCH = (1024, 4096, 24, 32) if SMALL else (1664, 8192, 48, 14)
SIZE, CLASSES = 224, 3
# bf16: a sign and the exponent of 1/64 but for its last bit, and that bit with the fraction.
HIGH = bytes(0x80 & byte | 0x3C for byte in range(256))
LOW = bytes(0x80 | byte for byte in range(256))


def shapes():
    patches = (SIZE // PATCH) ** 2
    shapes = {
        "vit.embeddings.cls_token": (1, 1, HIDDEN),
        "vit.embeddings.position_embeddings": (1, patches + 1, HIDDEN),
        "vit.embeddings.patch_embeddings.projection.weight": (HIDDEN, 3, PATCH, PATCH),
        "vit.embeddings.patch_embeddings.projection.bias": (HIDDEN,),
        "vit.layernorm.weight": (HIDDEN,),
        "vit.layernorm.bias": (HIDDEN,),
        "classifier.weight": (CLASSES, HIDDEN),
        "classifier.bias": (CLASSES,),
    }
    dense = {
        "attention.attention.query": (HIDDEN, HIDDEN),
        "attention.attention.key": (HIDDEN, HIDDEN),
        "attention.attention.value": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (WIDE, HIDDEN),
        "output.dense": (HIDDEN, WIDE),
        "layernorm_before": (HIDDEN,),
        "layernorm_after": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, shape in dense.items():
            shapes[f"vit.encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"vit.encoder.layer.{layer}.{name}.bias"] = shape[:1]
    return shapes


CONFIG = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "image_size": SIZE,
    "patch_size": PATCH,
    "num_channels": 3,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "qkv_bias": True,
    "id2label": {str(c): f"class{c}" for c in range(CLASSES)},
}
PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def png(path, level):
    """A grey image of 8 x 8 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([level, level, level] * 8) for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def noise(name, shape, index):
    """A tensor in bf16. Its signs are the same in all checkpoints, as if they were fine-tunings of one."""
    count = 1
    for d in shape:
        count *= d
    if len(shape) == 1 and name.endswith("bias"):
        return bytes(2 * count)
    if len(shape) == 1:
        return struct.pack("<H", 0x3F80) * count
    values = bytearray(2 * count)
    values[1::2] = random.Random(name).randbytes(count).translate(HIGH)
    values[0::2] = random.Random(f"{name} {index}").randbytes(count).translate(LOW)
    return values


def main(folder):
    ingredients, (dtype, width) = (8 if SMALL else 4, ("BF16", 2)) if NOISY else (3, ("F32", 4))
    header, at = {}, 0
    for name, shape in sorted(shapes().items()):
        count = width
        for d in shape:
            count *= d
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    for index in range(ingredients):
        place = f"{folder}/pool/m{index}"
        os.makedirs(place)
        with open(f"{place}/model.safetensors", "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            if NOISY:
                for name, tensor in header.items():
                    f.write(noise(name, tensor["shape"], index))
            else:
                f.truncate(8 + len(text) + at)
        for name, content in (("config.json", CONFIG), ("preprocessor_config.json", PREPROCESSOR)):
            with open(f"{place}/{name}", "w") as f:
                json.dump(content, f)
    images = 8 if NOISY else CLASSES
    for index in range(images):
        place = f"{folder}/images/class{index % CLASSES}"
        os.makedirs(place, exist_ok=True)
        png(f"{place}/{index}.png", 240 * index // images)
    print(f"{ingredients} checkpoints of {at // width:,} parameters, {at / 2**30:.2f} GiB each")


main(FOLDER)
