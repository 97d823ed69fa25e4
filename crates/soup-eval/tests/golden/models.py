"""Makes the golden files of the architectures with PyTorch and transformers (2.15 and 5.24 when they were checked in; the convolutional
ones, ALIGN and T5 by 4.57).

    pip install torch "transformers>=5" safetensors && python models.py [CASE...]

For every CASE, a tiny model whose parameters are all random, in models/CASE:

config.json, model.safetensors   as transformers saves them
preprocessor_config.json         where images have another size than image_size, or there is no such: cuts that size out of them
tokenizer.json, prompts.json     where classes are what prompts say
golden.safetensors
    pixel_values   f32, [samples, channels, height, width], what the model gets, where that is images
    ids, types     i64, the tokens of one text after the other, where it is texts
    lengths        i64, how many each text has
    label_ids      i64, the tokens of the label of one class after the other, where classes have such
    label_lengths  i64, how many each label has
    labels         i64
    logits         f32, in f32: with labels in tokens, the log-probabilities of these
    logits_f64     f64, in f64
    scalars        f64, [loss, derivative with respect to beta], of the mean loss with BETA and SMOOTHING
    gradient/NAME  f32, of that loss, taken in f64, with respect to the checkpoint's tensor NAME; zeros for running statistics
    block/NAME     f64, the running statistic NAME after a pass in training, taken in f64, over all samples as one block
"""
import inspect
import json
import pathlib
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = 6
BETA = 1.3
SMOOTHING = 0.1
SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
    "num_labels": 5,
}
# Every option that changes the forward pass, away from its default.
ODD = {
    **SMALL,
    "num_channels": 1,
    "qkv_bias": False,
    "layer_norm_eps": 0.01,
    "hidden_act": "gelu_new",
    "num_hidden_layers": 3,
}
# Neither square nor a whole number of patches.
OBLONG = {"image_size": [15, 22], "patch_size": [4, 5], "intermediate_size": 40}


def clip(options):
    """The options of a CLIP whose image tower has `options`, which no tower has a say in how many classes there are."""
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    vision = {**SMALL, "intermediate_size": 40, **options}
    classes = vision.pop("num_labels")
    return {"vision_config": vision, "text_config": text, "num_labels": classes}


# Two thirds of the MLP are no multiple of 8.
UNEVEN = {"hidden_size": 20, "num_attention_heads": 4}
RESNET = {"embedding_size": 10, "hidden_sizes": [12, 20], "depths": [2, 1], "layer_type": "basic", "num_labels": 5}
# Two stages in three blocks, of which the last has the input added.
EFFICIENTNET = {
    "width_coefficient": 0.25,
    "depth_coefficient": 1.0,
    "in_channels": [32, 64],
    "out_channels": [64, 96],
    "kernel_sizes": [3, 5],
    "strides": [1, 2],
    "num_block_repeats": [1, 2],
    "expand_ratios": [1, 3],
    "hidden_dim": 320,
    "image_size": 20,
    "num_labels": 5,
}
CASES = {
    "vit": ("ViT", "ForImageClassification", {**SMALL, "intermediate_size": 40}),
    "vit_odd": ("ViT", "ForImageClassification", {**ODD, **OBLONG}),
    "deit": ("DeiT", "ForImageClassification", {**SMALL, "intermediate_size": 40}),
    "deit_odd": ("DeiT", "ForImageClassification", {**ODD, **OBLONG}),
    "deit_teacher": ("DeiT", "ForImageClassificationWithTeacher", {**SMALL, "intermediate_size": 40}),
    "dinov2": ("Dinov2", "ForImageClassification", {**SMALL, "drop_path_rate": 0.2}),
    "dinov2_odd": (
        "Dinov2",
        "ForImageClassification",
        # Not a whole number of patches, but square: position embeddings are interpolated otherwise.
        {**ODD, "image_size": 18, "mlp_ratio": 2, "use_mask_token": False},
    ),
    "dinov2_swiglu": ("Dinov2", "ForImageClassification", {**SMALL, **UNEVEN, "use_swiglu_ffn": True, "mlp_ratio": 2}),
    # 9 x 9 positions become 5 x 5, 4 x 4 become 5 x 7, and 4 x 4 become as many, 2 x 8.
    "dinov2_smaller": ("Dinov2", "ForImageClassification", {**SMALL, "image_size": 36}, [20, 20]),
    "dinov2_larger": (
        "Dinov2",
        "ForImageClassification",
        {**SMALL, **UNEVEN, "use_swiglu_ffn": True, "mlp_ratio": 2},
        [23, 31],
    ),
    "dinov2_oblong": ("Dinov2", "ForImageClassification", {**ODD, "mlp_ratio": 2}, [8, 32]),
    "resnet": ("ResNet", "ForImageClassification", RESNET, [24, 24]),
    # A stage without the layer that its depth says, and an activation that is not that within a layer; an oblong image.
    "resnet_odd": (
        "ResNet",
        "ForImageClassification",
        {
            **RESNET,
            "num_channels": 1,
            "embedding_size": 9,
            "hidden_sizes": [9, 17, 17],
            "depths": [1, 2, 0],
            "hidden_act": "gelu",
            "downsample_in_first_stage": True,
        },
        [29, 43],
    ),
    "resnet_bottleneck": (
        "ResNet",
        "ForImageClassification",
        {**RESNET, "hidden_sizes": [16, 37], "layer_type": "bottleneck"},
        [21, 32],
    ),
    "resnet_bottleneck_first": (
        "ResNet",
        "ForImageClassification",
        {
            **RESNET,
            "hidden_sizes": [19, 24],
            "layer_type": "bottleneck",
            "downsample_in_bottleneck": True,
            "downsample_in_first_stage": True,
            "hidden_act": "silu",
        },
        [31, 26],
    ),
    "efficientnet": ("EfficientNet", "ForImageClassification", EFFICIENTNET),
    # Everything away from its default: widths that are not rounded down by much, windows of even and of one pixel, padding on both sides
    # of the second block with a step of two.
    "efficientnet_odd": (
        "EfficientNet",
        "ForImageClassification",
        {
            **EFFICIENTNET,
            "num_channels": 1,
            "width_coefficient": 0.3,
            "depth_divisor": 5,
            "depth_coefficient": 1.4,
            "in_channels": [32, 64, 40, 70],
            "out_channels": [64, 40, 70, 30],
            "kernel_sizes": [4, 5, 1, 3],
            "strides": [2, 2, 2, 1],
            "num_block_repeats": [1, 1, 1, 1],
            "expand_ratios": [2, 1, 3, 1],
            "depthwise_padding": [2, 5],
            "squeeze_expansion_ratio": 0.4,
            "hidden_act": "gelu_new",
            "hidden_dim": 385,
            "pooling_type": "max",
            "batch_norm_eps": 0.05,
        },
        [37, 50],
    ),
    "efficientnet_even": (
        "EfficientNet",
        "ForImageClassification",
        {
            **EFFICIENTNET,
            "kernel_sizes": [2, 4],
            "squeeze_expansion_ratio": 0.01,
            "hidden_act": "relu",
            "depthwise_padding": [1],
        },
        [19, 17],
    ),
    "registers": ("Dinov2WithRegisters", "ForImageClassification", {**SMALL, "num_register_tokens": 3}),
    # 9 x 9 positions become 4 x 4 and 3 x 2, 4 x 4 become 5 x 7: with antialiasing, which only shows where there are fewer.
    "registers_smaller": (
        "Dinov2WithRegisters",
        "ForImageClassification",
        {**ODD, "image_size": 38, "num_register_tokens": 1, "mlp_ratio": 2},
        [16, 16],
    ),
    "registers_oblong": ("Dinov2WithRegisters", "ForImageClassification", {**SMALL, "image_size": 36}, [13, 9]),
    "registers_larger": (
        "Dinov2WithRegisters",
        "ForImageClassification",
        {**SMALL, **UNEVEN, "use_swiglu_ffn": True, "mlp_ratio": 2},
        [23, 31],
    ),
    "clip": ("CLIP", "ForImageClassification", clip({})),
    "clip_odd": ("CLIP", "ForImageClassification", clip({**ODD, "image_size": 19, "patch_size": 5})),
    # With a text tower, as what is made of a whole CLIP may have it.
    "clip_whole": ("CLIP", "ForImageClassification", clip({"hidden_act": "gelu", "num_hidden_layers": 1})),
}

TEXT = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
    "num_labels": 3,
}
ODD_TEXT = {
    "vocab_size": 37,
    "hidden_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 33,
    "max_position_embeddings": 29,
    "num_labels": 5,
    "layer_norm_eps": 0.01,
    "type_vocab_size": 4,
    "pad_token_id": 7,
}
DISTILLED = {
    "vocab_size": 61,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 40,
    "max_position_embeddings": 40,
    "num_labels": 3,
}
HEAD = "ForSequenceClassification"
# Looked at as they are, text by text: none is padded. The token that pads is among their tokens all the same.
TEXT_CASES = {
    "bert": ("Bert", HEAD, TEXT),
    "bert_odd": ("Bert", HEAD, {**ODD_TEXT, "hidden_act": "gelu_new"}),
    "bert_unpadded": ("Bert", HEAD, {**TEXT, "hidden_act": "silu", "pad_token_id": None, "num_hidden_layers": 1}),
    "bert_shallow": ("Bert", HEAD, {**TEXT, "num_hidden_layers": 0, "num_attention_heads": 1}),
    "roberta": ("Roberta", HEAD, {**TEXT, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "roberta_odd": ("Roberta", HEAD, {**ODD_TEXT, "hidden_act": "relu"}),
    "distilbert": ("DistilBert", HEAD, DISTILLED),
    "distilbert_odd": (
        "DistilBert",
        HEAD,
        {
            **DISTILLED,
            "activation": "relu",
            "n_layers": 3,
            "n_heads": 2,
            "pad_token_id": 3,
            "sinusoidal_pos_embds": True,
        },
    ),
}

T5 = {
    "vocab_size": 61,
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 3,
    "num_labels": 3,
    "decoder_start_token_id": 0,
}
# Classes are told apart by the probabilities of their labels' tokens, of which the last is the end of a text.
LABEL_CASES = {
    "t5": T5,
    # As T5 v1.1 and Flan-T5 have it.
    "t5_gated": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    # Everything away from its default: heads that are wider together than the hidden state, stacks of different depths, few buckets
    # that do not halve evenly, another start and end.
    "t5_odd": {
        **T5,
        "vocab_size": 37,
        "d_model": 20,
        "d_kv": 9,
        "d_ff": 33,
        "num_layers": 3,
        "num_decoder_layers": 1,
        "num_heads": 4,
        "num_labels": 5,
        "relative_attention_num_buckets": 7,
        "relative_attention_max_distance": 11,
        "layer_norm_epsilon": 0.01,
        "feed_forward_proj": "gated-silu",
        "decoder_start_token_id": 5,
        "eos_token_id": 11,
    },
    # Heads that are narrower together, an activation that is not gated, a head of its own.
    "t5_narrow": {
        **T5,
        "d_kv": 5,
        "num_heads": 2,
        "num_layers": 1,
        "num_decoder_layers": 3,
        "feed_forward_proj": "gelu",
        "tie_word_embeddings": False,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 30,
    },
    # Texts that are longer than the farthest distance.
    "t5_far": {**T5, "num_layers": 1, "num_labels": 2, "relative_attention_max_distance": 40},
}


ZERO_SHOT_TEXT = {
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 28,
    "vocab_size": 61,
    "max_position_embeddings": 12,
    "bos_token_id": 59,
    "eos_token_id": 60,
}
ZERO_SHOT_IMAGES = {**SMALL, "intermediate_size": 40}
# Two stages in three blocks, as EFFICIENTNET has them, and a text tower: what is compared are the channels of the last block.
ALIGN = {
    "vision_config": {name: value for name, value in EFFICIENTNET.items() if name not in ("hidden_dim", "num_labels")},
    "text_config": {**TEXT, "max_position_embeddings": 12},
    "projection_dim": 24,
}
# A whole CLIP or ALIGN, and what its classes' prompts are.
ZERO_SHOT_CASES = {
    "clip_zero_shot": (
        "CLIP",
        {"text_config": ZERO_SHOT_TEXT, "vision_config": ZERO_SHOT_IMAGES, "projection_dim": 16},
        ["w1 w2 {}"],
    ),
    # The wrong end of early files, several prompts a class, options away from their defaults.
    "clip_zero_shot_early": (
        "CLIP",
        {
            "text_config": {
                **ZERO_SHOT_TEXT,
                "eos_token_id": 2,
                "hidden_act": "gelu",
                "num_hidden_layers": 3,
                "layer_norm_eps": 0.01,
            },
            "vision_config": {**ZERO_SHOT_IMAGES, "num_channels": 1, "hidden_act": "gelu_new", "layer_norm_eps": 0.02},
            "projection_dim": 11,
        },
        ["{}", "w2 w3 w4 w5 w2 {}", "w7 {} w8"],
    ),
    "align": ("Align", ALIGN, ["w1 w2 {}"]),
    # Everything away from its default, several prompts a class, and their tokens of another type.
    "align_odd": (
        "Align",
        {
            "vision_config": {
                **ALIGN["vision_config"],
                "num_channels": 1,
                "width_coefficient": 0.3,
                "depth_divisor": 5,
                "depth_coefficient": 1.4,
                "in_channels": [32, 64, 40],
                "out_channels": [64, 40, 30],
                "kernel_sizes": [4, 5, 3],
                "strides": [2, 2, 1],
                "num_block_repeats": [1, 1, 1],
                "expand_ratios": [2, 1, 3],
                "depthwise_padding": [2],
                "squeeze_expansion_ratio": 0.4,
                "hidden_act": "gelu_new",
                "hidden_dim": 385,
                "pooling_type": "max",
                "batch_norm_eps": 0.05,
            },
            "text_config": {**ODD_TEXT, "vocab_size": 61, "hidden_act": "relu"},
            "projection_dim": 10,
        },
        ["{}", "w2 w3 w7 w5 w2 {}", "w7 {} w8"],
        [37, 26],
    ),
    # One layer of texts, no token that pads, images of another size than image_size.
    "align_unpadded": (
        "Align",
        {
            **ALIGN,
            "vision_config": {**ALIGN["vision_config"], "kernel_sizes": [2, 3], "hidden_act": "relu", "image_size": 600},
            "text_config": {**ALIGN["text_config"], "num_hidden_layers": 1, "hidden_act": "silu", "pad_token_id": None},
        },
        ["{} w4", "w9 {}"],
        [19, 17],
    ),
}
ZERO_SHOT_CLASSES = ["w11", "w12 w13", "w14", "w15 w11 w16", "w17"]


def randomise(model):
    convolutional = any(name.endswith("running_var") for name, _ in model.named_buffers())
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.normal_(0.0, 0.3)
            if convolutional and parameter.dim() == 4:
                # As many inputs as a window has values.
                parameter.div_(0.3 * parameter[0].numel() ** 0.5)
            # Products with keys that nothing scales: as T5 has its queries in the beginning.
            if name.endswith("Attention.q.weight"):
                parameter.div_(model.config.d_kv**0.5)
            # What is multiplied by is around one, of either sign for the scales of layers.
            if ("norm" in name.lower() or "_bn." in name) and name.endswith("weight") or "lambda1" in name:
                parameter.add_(1.0)
        for name, buffer in sorted(model.named_buffers()):
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3)
            if name.endswith("running_var"):
                buffer.uniform_(0.3, 2.0)


def saved(model, folder):
    """Saves, and reads back the tensors by the names that they have in the file."""
    model.save_pretrained(folder)
    (pathlib.Path(folder) / "generation_config.json").unlink(missing_ok=True)
    return load_file(pathlib.Path(folder) / "model.safetensors")


def run(model, pixels):
    dtype = next(model.parameters()).dtype
    return model(pixel_values=pixels.to(dtype)).logits


def run_texts(model, texts):
    """Each text alone: what it comes out as depends on nothing else."""
    with_types = "token_type_ids" in inspect.signature(model.forward).parameters
    logits = []
    for ids, types in texts:
        others = {"token_type_ids": types[None]} if with_types else {}
        logits.append(model(input_ids=ids[None], **others).logits)
    return torch.cat(logits)


def run_labels(model, texts, labels):
    """What the decoder gives to the tokens of each label, each text and each label alone."""
    scores = []
    for ids, _ in texts:
        logits = [model(input_ids=ids[None], labels=label[None]).logits[0] for label in labels]
        chosen = [torch.log_softmax(of, -1).gather(1, label[:, None]) for of, label in zip(logits, labels)]
        scores.append(torch.stack([of.sum() for of in chosen]))
    return torch.stack(scores)


def block_statistics(model, forward):
    """The running statistics that all samples have as one block. They stay in the model."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
        layer.train()
    with torch.no_grad():
        forward(model)
    for layer in layers:
        layer.eval()
    names = ("running_mean", "running_var")
    return {name: buffer.clone() for name, buffer in model.named_buffers() if name.endswith(names)}


def new_model(case, family, head, options):
    """A model of random parameters, saved."""
    torch.manual_seed(sum(case.encode()))
    # Eager attention: plain operations, as the definition has them.
    config = getattr(transformers, f"{family}Config")(**options, attn_implementation="eager")
    model = getattr(transformers, family + head)(config).eval()
    if case == "clip_whole":
        model.text_model = transformers.CLIPTextModel._from_config(config.text_config)
    randomise(model)
    folder = HERE / "models" / case
    folder.mkdir(parents=True, exist_ok=True)
    saved(model, folder)
    return config, model, folder


def make_texts(case, family, head, options):
    config, model, folder = new_model(case, family, head, options)
    longest = config.max_position_embeddings
    if family == "Roberta":
        longest -= config.pad_token_id + 1
    # The longest there may be, the shortest, and some between; of pairs, the second one's tokens are of type 1.
    lengths = [longest, 1, 2, 11, 11, 5, longest // 2, 3]
    type_vocab_size = getattr(config, "type_vocab_size", 1)
    texts = []
    for nth, length in enumerate(lengths):
        ids = torch.randint(config.vocab_size, (length,))
        if config.pad_token_id is not None and nth % 2 == 1:
            ids[length // 2] = config.pad_token_id
        types = torch.zeros(length, dtype=torch.int64)
        if nth % 3 == 0:
            types[length // 3 :] = min(1, type_vocab_size - 1)
        if nth == 3:
            types[-2:] = type_vocab_size - 1
        texts.append((ids, types))
    inputs = {
        "ids": torch.cat([ids for ids, _ in texts]),
        "types": torch.cat([types for _, types in texts]),
        "lengths": torch.tensor(lengths),
    }
    write(case, model, folder, inputs, lambda model: run_texts(model, texts), len(lengths), config.num_labels)


def zero_shot(model, prompts, tokenizer, pixels):
    """How well every image fits the prompts of every class: as transformers has it where a class has one prompt."""
    types = "Align" in type(model).__name__

    def with_types(encoding):
        return {"token_type_ids": torch.tensor([encoding.type_ids])} if types else {}

    if len(prompts[0][1]) == 1:
        encoded = [[tokenizer.encode(prompt).ids for prompt in of_class] for _, of_class in prompts]
        longest = max(len(ids) for [ids] in encoded)
        padded = torch.tensor([ids + [60] * (longest - len(ids)) for [ids] in encoded])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for [ids] in encoded])
        return model(input_ids=padded, attention_mask=mask, pixel_values=pixels).logits_per_image.contiguous()

    def normed(features):
        features = getattr(features, "pooler_output", features)
        return features / features.norm(dim=-1, keepdim=True)

    classes = []
    for _, of_class in prompts:
        encoded = [tokenizer.encode(prompt) for prompt in of_class]
        texts = [normed(model.get_text_features(input_ids=torch.tensor([e.ids]), **with_types(e))) for e in encoded]
        classes.append(normed(torch.cat(texts).mean(dim=0, keepdim=True)))
    images = normed(model.get_image_features(pixel_values=pixels))
    scale = 1 / model.temperature if types else model.logit_scale.exp()
    return scale * images @ torch.cat(classes).T


def make_zero_shot(case, family, options, templates, size=None):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    config, model, folder = new_model(case, family, "Model", options)
    with torch.no_grad():
        if family == "CLIP":
            model.logit_scale.fill_(1.7)
        else:
            model.temperature.fill_(0.2)
    saved(model, folder)
    vocabulary = {f"w{token}": token for token in range(59)} | {"<s>": 59, "</s>": 60}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "<s>:3 $A:1 </s>:2" if case == "align_odd" else "<s> $A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 59), ("</s>", 60)])
    tokenizer.save(str(folder / "tokenizer.json"))
    prompts = [[name, [template.format(name) for template in templates]] for name in ZERO_SHOT_CLASSES]
    said = {"classes": ZERO_SHOT_CLASSES, "templates": templates}
    (folder / "prompts.json").write_text(json.dumps(said, indent=1) + "\n")
    images = config.vision_config
    pixels = torch.randn(SAMPLES, images.num_channels, *preprocess(folder, images, size))

    def forward(model):
        return zero_shot(model, prompts, tokenizer, pixels.to(next(model.parameters()).dtype))

    write(case, model, folder, {"pixel_values": pixels}, forward, SAMPLES, len(prompts))


def make_labels(case, options):
    config, model, folder = new_model(case, "T5", "ForConditionalGeneration", options)
    lengths = [70 if case == "t5_far" else 29, 1, 2, 11, 11, 5, 14, 3]
    texts = [(torch.randint(config.vocab_size, (n,)), torch.zeros(n, dtype=torch.int64)) for n in lengths]
    # One is nothing but the end, one another's beginning, one long.
    labels = [torch.randint(12, config.vocab_size, (n,)) for n in [3, 1, 0, 20, 2][: config.num_labels]]
    labels[1] = labels[0][:1]
    labels = [torch.cat([label, torch.tensor([config.eos_token_id])]) for label in labels]
    inputs = {
        "ids": torch.cat([ids for ids, _ in texts]),
        "types": torch.cat([types for _, types in texts]),
        "lengths": torch.tensor(lengths),
        "label_ids": torch.cat(labels),
        "label_lengths": torch.tensor([len(label) for label in labels]),
    }
    forward = lambda model: run_labels(model, texts, labels)
    write(case, model, folder, inputs, forward, len(lengths), config.num_labels)


def make(case, family, head, options, size=None):
    config, model, folder = new_model(case, family, head, options)
    images = getattr(config, "vision_config", config)
    pixels = torch.randn(SAMPLES, images.num_channels, *preprocess(folder, images, size))
    write(case, model, folder, {"pixel_values": pixels}, lambda model: run(model, pixels), SAMPLES, config.num_labels)


def preprocess(folder, images, size):
    """The size of images, which a preprocessing says where it is given."""
    if size is not None:
        crop = {"height": size[0], "width": size[1]}
        preprocessor = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "crop_size": crop}
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    else:
        (folder / "preprocessor_config.json").unlink(missing_ok=True)
        size = images.image_size if isinstance(images.image_size, (list, tuple)) else [images.image_size] * 2
    return size


def write(case, model, folder, inputs, forward, samples, classes, saved=saved):
    labels = torch.randint(classes, (samples,))
    with torch.no_grad():
        logits = forward(model)
    model.double()
    beta = torch.tensor(BETA, dtype=torch.float64, requires_grad=True)
    exact = forward(model)
    loss = torch.nn.functional.cross_entropy(beta * exact, labels, label_smoothing=SMOOTHING)
    loss.backward()
    block = block_statistics(model, forward)
    # Saved in the parameters' places, the gradients get the names, and are put together in the way, of the file.
    for parameter in model.parameters():
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        parameter.data = gradient.float()
    model.float()
    for buffer in model.buffers():
        buffer.zero_()
    with tempfile.TemporaryDirectory() as other:
        gradients = saved(model, other)
    golden = {
        **inputs,
        "labels": labels,
        "logits": logits,
        "logits_f64": exact.detach(),
        "scalars": torch.tensor([loss.item(), beta.grad.item()], dtype=torch.float64),
        **{f"gradient/{name}": gradient for name, gradient in gradients.items()},
        **{f"block/{name}": values for name, values in block.items()},
    }
    save_file(golden, folder / "golden.safetensors")
    print(f"{case}: loss {loss.item():.4f}, f32 is off by {(logits - exact).abs().max().item():.1e}")


if __name__ == "__main__":
    for case in sys.argv[1:] or [*CASES, *TEXT_CASES, *ZERO_SHOT_CASES, *LABEL_CASES]:
        if case in ZERO_SHOT_CASES:
            make_zero_shot(case, *ZERO_SHOT_CASES[case])
        elif case in TEXT_CASES:
            make_texts(case, *TEXT_CASES[case])
        elif case in LABEL_CASES:
            make_labels(case, LABEL_CASES[case])
        else:
            make(case, *CASES[case])
