"""Judges that are started without a line of code."""

import json
import os
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.torch

from tiny import NAMES, PREPROCESSOR, TEXTS, WORDS, images, lines, saved, t5, vit

from soup_judge.check.__main__ import main as check
from soup_judge.judge import default_digest
from soup_judge.transformers import __main__ as command


def test_versions_that_are_not_known_are_refused(monkeypatch):
    monkeypatch.setattr(transformers, "__version__", "6.0.0")
    monkeypatch.setattr("soup_judge.transformers.base.VERSION", 6)
    with pytest.raises(SystemExit, match=r"transformers 6\.0\.0 is not known"):
        command.judge_of(command.parser().parse_args(["image-classification"]))


def test_versions_tell_judges_apart(monkeypatch):
    told = set()
    for name, version in (("", ""), ("transformers", "5.0.1"), ("pillow", "99"), ("torchvision", "99")):
        with monkeypatch.context() as patched:
            if name == "transformers":
                patched.setattr(transformers, "__version__", version)
            elif name:
                patched.setattr(
                    "soup_judge.transformers.images.installed", lambda n, name=name, v=version: v if n == name else "1"
                )
            judge = command.judge_of(command.parser().parse_args(["image-classification"]))
            told.add(default_digest(judge))
    assert len(told) == 4


def test_every_kind_tells_who_it_is(tokenizer, tmp_path):
    (tmp_path / "prompts.json").write_text('{"a": ["a"], "b": ["b"]}')
    told = set()
    for kind, cls in command.KINDS.items():
        arguments = [kind]
        if kind not in ("image-classification", "clip-linear"):
            arguments += ["--tokenizer", str(tokenizer)]
        if kind == "clip-zero-shot":
            arguments += ["--prompts", str(tmp_path / "prompts.json")]
        judge = command.judge_of(command.parser().parse_args(arguments))
        assert type(judge) is cls
        from soup_judge.checks import description

        found = description(judge)
        assert found.numerics == f"torch-{torch.__version__}-cpu-f32"
        told.add((kind, found.digest))
        assert ("gradients" in found.abilities) is (kind != "causal-perplexity")
    assert len({digest for _, digest in told}) >= 5


@pytest.mark.parametrize("kind", ["image-classification", "causal-perplexity", "t5-label-text"])
def test_the_command_line_serves_what_passes_the_checks(tokenizer, tmp_path, capsys, kind):
    torch.manual_seed(0)
    if kind == "image-classification":
        model, source, more = vit(), images(tmp_path / "v.parquet", names=NAMES)[0], []
    elif kind == "t5-label-text":
        model, source = t5(), lines(tmp_path / "v.jsonl", TEXTS, ["bad", "good"] * 4)
        more = ["--tokenizer", str(tokenizer), "--labels", "good,bad"]
    else:
        config = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=12, n_layer=2, n_head=2, n_positions=32)
        model, more = transformers.GPT2LMHeadModel(config), ["--tokenizer", str(tokenizer)]
        source = tmp_path / "v.txt"
        source.write_text("\n".join(TEXTS))
    saved(model, tmp_path / "model")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    path = tmp_path / "judge.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "soup_judge.transformers", kind, *more],
        env={**os.environ, "SOUP_JUDGE_SOCKET": str(path)},
        stdin=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        status = check(
            [
                str(path),
                "--source",
                str(source),
                "--weights",
                str(tmp_path / "model" / "model.safetensors"),
                "--config",
                str(tmp_path / "model" / "config.json"),
                "--preprocessor",
                str(tmp_path / "preprocessor_config.json"),
                "--samples",
                "6",
                "--batch-size",
                "2",
            ]
        )
        out = capsys.readouterr().out
        assert status == 0, out
        assert out.splitlines()[-1] == (
            "15 passed, 0 failed, 4 skipped" if "causal" in kind else "18 passed, 0 failed, 1 skipped"
        )
    finally:
        process.stdin.close()
    assert process.wait(20) == 0
    assert not path.exists()
