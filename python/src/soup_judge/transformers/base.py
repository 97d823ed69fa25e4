"""What all judges of transformers have in common: models by the pool's config.json, processors and tokenizers."""

from __future__ import annotations

import importlib.util
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from soup_judge.data import digest_of
from soup_judge.errors import Refused
from soup_judge.judge import installed
from soup_judge.layout import Slot
from soup_judge.schema import Schema, Tensor
from soup_judge.torch import Arithmetic, TorchJudge, empty_parameters
from soup_judge.transformers.probing import layout_of, loader

VERSION = int(transformers.__version__.partition(".")[0])
"""Of transformers: 4 names tensors in memory as files do, 5 may not."""
DTYPE = "torch_dtype" if VERSION == 4 else "dtype"
"""What a model's dtype is called."""

DEFAULT_LENGTH = 512
"""Tokens, where neither the command line nor the tokenizer says how many a text may have."""


class TransformersJudge(TorchJudge):
    """A judge of a model that a config.json describes."""

    auto: str
    """The class of transformers that makes the model of the config."""

    def __init__(self, *, arithmetic: Arithmetic | None = None) -> None:
        """As every judge of PyTorch. Raises `SystemExit` for a version of transformers that is not known."""
        if VERSION not in (4, 5):
            raise SystemExit(
                f"soup_judge: transformers {transformers.__version__} is not known to this judge: install "
                '"transformers>=4.45,<6"'
            )
        super().__init__(arithmetic=arithmetic)
        self.configuration = {**self.configuration, "transformers": transformers.__version__}

    def build(self, schema: Schema) -> torch.nn.Module:
        """The model, and `self.config`."""
        self.config = config_of(schema)
        with refusing("the pool's config.json"), empty_parameters():
            # Else what is no parameter would be made in the dtype that the config says, and rounded to it.
            model: torch.nn.Module = getattr(transformers, self.auto).from_config(self.config, **{DTYPE: self.dtype})
        return model

    def layout(self, schema: Schema) -> Mapping[str, Slot] | None:
        """In transformers 4 the model has the files' names; in 5 it is asked for where it has what."""
        return self.loaded_by(type(self.module), self.config, schema.tensors) if VERSION > 4 else None

    def loaded_by(self, kind: type[Any], config: Any, tensors: Sequence[Tensor]) -> dict[str, Slot]:
        """Where a class of transformers puts the tensors of a file."""
        with refusing("the pool's tensors"):
            return layout_of(loader(kind, config), tensors, self.progress)

    def unused(self, name: str) -> bool:
        """What the model's class ignores in files itself, and buffers that were saved once."""
        patterns = getattr(self.module, "_keys_to_ignore_on_load_unexpected", None) or ()
        if any(re.search(pattern, name) for pattern in patterns):
            return True
        once = name.endswith(("position_ids", "rotary_emb.inv_freq"))
        return once and any(each.endswith(name.rpartition(".")[2]) for each, _ in self.module.named_buffers())


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Within, errors of transformers are about `what` of the run, and refuse it."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"{what}: {type(error).__name__}: {error}") from error


def config_of(schema: Schema) -> Any:
    """The pool's configuration. Raises `Refused` for one that transformers does not know, or that brings code along."""
    if "auto_map" in schema.config:
        raise Refused("the pool's config.json needs code of its own (auto_map), which this judge does not run")
    with refusing("the pool's config.json"), tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(schema.config_text)
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def image_processor_of(schema: Schema) -> tuple[Any, list[str]]:
    """The pool's image processor, of the kind that resizes with Pillow and computes in numpy, whichever kind is the
    default; and what people should know. Raises `Refused` where the pool has none."""
    _ = schema.preprocessor
    # Later versions have two classes by the same name, and call the choice otherwise.
    named = importlib.util.find_spec("transformers.image_processing_backends") is not None
    choice = {"backend": "pil"} if named else {"use_fast": False}
    with refusing("the pool's preprocessor_config.json"), tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(schema.config_text)
        Path(folder, "preprocessor_config.json").write_text(schema.preprocessor_text)
        found = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, **choice)
    other = any(each.__name__ in ("TorchvisionBackend", "BaseImageProcessorFast") for each in type(found).__mro__)
    told = f"images are resized by torchvision: transformers has no {type(found).__name__} that does it with Pillow"
    return found, [told] if other else []


class Tokenizer:
    """A tokenizer of a local folder. Every text of a dataset gets as many tokens as the longest has, so that no sample
    depends on which others are in its block."""

    def __init__(self, folder: Path, max_length: int | None) -> None:
        """Raises `SystemExit` where the folder has none."""
        if not folder.is_dir():
            raise SystemExit(f"soup_judge: --tokenizer {folder}: there is no such folder")
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"soup_judge: --tokenizer {folder}: {error}") from error
        most = self.tokenizer.model_max_length
        # A tokenizer that knows no limit says so by a very large number.
        known = most if most < 1 << 30 else None
        if max_length is not None and known is not None and max_length > known:
            raise SystemExit(f"soup_judge: --max-length {max_length}: the tokenizer allows {known} tokens")
        self.max_length: int = max_length or known or DEFAULT_LENGTH
        if self.tokenizer.pad_token is None:
            # What is behind a text is masked whatever it is.
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.tokenizer.pad_token is None:
            raise SystemExit(f"soup_judge: --tokenizer {folder}: it has neither a padding token nor one of the end")
        self.tokenizer.padding_side = "right"
        self.configuration = {
            "tokenizer": digest_of(folder),
            "tokenizers": installed("tokenizers"),
            "max-length": self.max_length,
        }

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, vocabulary: int, progress: Callable[[str], None]
    ) -> tuple[dict[str, torch.Tensor], str]:
        """Tensors of [texts, tokens] by the model's argument, and a note about texts that were cut.

        Raises `Refused` where a token is beyond the model's vocabulary.
        """
        rows: dict[str, list[list[int]]] = {}
        cut = 0
        for begin in range(0, len(texts), 1000):
            progress(f"tokens of {begin} texts of {len(texts)}")
            first = list(texts[begin : begin + 1000])
            second = list(pairs[begin : begin + 1000]) if pairs is not None else None
            encoded = self.tokenizer(first, second, truncation=True, max_length=self.max_length, verbose=False)
            for name, values in encoded.items():
                rows.setdefault(name, []).extend(values)
            # Only what is as long as can be may have been cut.
            full = [n for n, ids in enumerate(encoded["input_ids"]) if len(ids) == self.max_length]
            for n in full:
                whole = self.tokenizer(first[n], second[n] if second else None, verbose=False)
                cut += len(whole["input_ids"]) > self.max_length
        longest = max(len(ids) for ids in rows["input_ids"])
        fill = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        inputs = {}
        for name, values in rows.items():
            inputs[name] = torch.full((len(texts), longest), fill.get(name, 0), dtype=torch.int64)
            for row, ids in enumerate(values):
                inputs[name][row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        largest = int(inputs["input_ids"].max())
        if largest >= vocabulary:
            raise Refused(f"the tokenizer is another model's: token {largest} is beyond the vocabulary of {vocabulary}")
        note = f"{cut} of {len(texts)} texts were cut at {self.max_length} tokens" if cut else ""
        return inputs, note


class TokenizedJudge(TransformersJudge):
    """A judge of texts. The tokenizer is that of a folder."""

    def __init__(
        self,
        tokenizer: Path,
        *,
        max_length: int | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """`max_length`: tokens at which texts are cut; None: as many as the tokenizer allows."""
        super().__init__(arithmetic=arithmetic)
        self.tokenizer = Tokenizer(tokenizer, max_length)
        self.configuration = {**self.configuration, **self.tokenizer.configuration}


def vocabulary(config: Any) -> int:
    """Tokens that a model knows; one of several parts has its texts' model inside."""
    told: int = getattr(config, "vocab_size", None) or config.get_text_config().vocab_size
    return told


def accepted(module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those inputs that a model takes: some tokenizers tell of segments to models that know none."""
    known = inspect.signature(module.forward).parameters
    return {name: tensor for name, tensor in inputs.items() if name in known}
