"""Three ViT checkpoints of 1.84 B parameters as sparse files, and one image a class. See cook.sh."""

import json
import os
import struct
import sys
import zlib

HIDDEN, WIDE, LAYERS, SIZE, PATCH, CLASSES = 1664, 8192, 48, 224, 14, 3
INGREDIENTS = 3


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


def main(folder):
    header, at = {}, 0
    for name, shape in sorted(shapes().items()):
        count = 4
        for d in shape:
            count *= d
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    for index in range(INGREDIENTS):
        place = f"{folder}/pool/m{index}"
        os.makedirs(place)
        with open(f"{place}/model.safetensors", "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            f.truncate(8 + len(text) + at)
        for name, content in (("config.json", CONFIG), ("preprocessor_config.json", PREPROCESSOR)):
            with open(f"{place}/{name}", "w") as f:
                json.dump(content, f)
    for index in range(CLASSES):
        os.makedirs(f"{folder}/images/class{index}")
        png(f"{folder}/images/class{index}/a.png", 80 * index)
    print(f"{INGREDIENTS} checkpoints of {at // 4:,} parameters, {at / 2**30:.2f} GiB each")


main(sys.argv[1])
