"""Judges of texts, against plain loops."""

import math

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.torch

import pyarrow as pa
import pyarrow.parquet as pq
from tiny import TEXTS, WORDS, bert, lines, padded, t5
from torch.nn.functional import cross_entropy

from soup_judge.transformers import __main__ as command


def test_sequence_classification(opened, tokenizer, tmp_path):
    model = bert()
    labels = [1, 0, 0, 1, 0, 1, 0, 1]
    session = opened(
        ["sequence-classification", "--tokenizer", tokenizer], model, lines(tmp_path / "v.jsonl", TEXTS, labels)
    )
    encoded = padded(tokenizer, TEXTS)
    with torch.inference_mode():
        torch.testing.assert_close(session.logits(8), model(**encoded).logits)
    gradient = session.gradient(8, tmp_path / "gradient")
    cross_entropy(model(**encoded).logits, torch.tensor(labels), reduction="sum").backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_pairs_of_texts_in_every_kind_of_file(opened, tokenizer, tmp_path):
    model = bert(id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1})
    second = TEXTS[::-1]
    labels = ["no", "yes"] * 4
    with torch.inference_mode():
        expected = model(**padded(tokenizer, TEXTS, second)).logits
    columns = {"premise": TEXTS, "hypothesis": second, "label": labels}
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    lines(tmp_path / "v.jsonl", *columns.values(), names=columns)
    for ending, mark in (("csv", ","), ("tsv", "\t")):
        rows = [mark.join(columns), *(mark.join(row) for row in zip(*columns.values(), strict=True))]
        (tmp_path / f"v.{ending}").write_text("\n".join(rows) + "\n")
    for ending in ("parquet", "jsonl", "csv", "tsv"):
        session = opened(["sequence-classification", "--tokenizer", tokenizer], model, tmp_path / f"v.{ending}")
        torch.testing.assert_close(session.logits(8), expected)
        assert [label for block in session.blocks(8) for label in block.outcomes.labels] == [1, 0] * 4


@pytest.mark.parametrize("told", [True, False])
def test_a_model_that_finds_the_end_by_padding(opened, tokenizer, tmp_path, told):
    config = transformers.GPT2Config(
        vocab_size=len(WORDS),
        n_embd=12,
        n_layer=2,
        n_head=2,
        n_positions=32,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=4,
    )
    model = transformers.GPT2ForSequenceClassification(config).eval()
    source = lines(tmp_path / "v.jsonl", TEXTS, [0, 1] * 4)
    config = {} if told else {"pad_token_id": None}
    session = opened(["sequence-classification", "--tokenizer", tokenizer], model, source, config=config)
    encoded = padded(tokenizer, TEXTS)
    with torch.inference_mode():
        expected = model(**encoded).logits
    torch.testing.assert_close(session.logits(8), expected)


def test_texts_that_are_cut_are_told(opened, tokenizer, tmp_path):
    source = lines(tmp_path / "v.jsonl", TEXTS, [0, 1] * 4)
    session = opened(["sequence-classification", "--tokenizer", tokenizer, "--max-length", 5], bert(), source)
    assert list(session.client.survey.notes) == ["validation: 3 of 8 texts were cut at 5 tokens"]


def test_texts_that_cannot_be_judged(opened, tokenizer, tmp_path, refused):
    start = ["sequence-classification", "--tokenizer", tokenizer]
    source = lines(tmp_path / "v.jsonl", TEXTS, [0, 1] * 4)
    with refused.request("beyond the vocabulary of 7"):
        small = transformers.BertConfig(
            vocab_size=7, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
        opened(start, transformers.BertForSequenceClassification(small), source)
    with refused.request("which text is meant?", "body, label"):
        opened(start, bert(), lines(tmp_path / "b.jsonl", TEXTS, [0] * 8, names=("body", "label")))
    opened(start, bert(), tmp_path / "b.jsonl", options={"text-column": "body"})
    with refused.request("row 7 is 5"):
        opened(start, bert(), lines(tmp_path / "l.jsonl", TEXTS, [0] * 7 + [5]))
    with refused.request("its labels are names (bad, good)"):
        opened(start, bert(), lines(tmp_path / "n.jsonl", TEXTS, ["good", "bad"] * 4))
    for arguments, text in (
        (["--tokenizer", tmp_path / "nowhere"], "no such folder"),
        (["--tokenizer", tmp_path], "--tokenizer"),
        (["--tokenizer", tokenizer, "--max-length", 99], "allows 16 tokens"),
    ):
        with pytest.raises(SystemExit, match=text):
            command.judge_of(command.parser().parse_args([start[0], *map(str, arguments)]))


@pytest.mark.parametrize("tied", [True, False])
def test_label_texts(opened, tokenizer, tmp_path, tied):
    model = t5(tie_word_embeddings=tied)
    if not tied:
        # Transformers 5 ties whatever the config says, unless a file has both.
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        getattr(model, "all_tied_weights_keys", {}).pop("lm_head.weight", None)
        if getattr(model.config, "scale_decoder_outputs", False):
            pytest.skip("this version of transformers scales what it should not, which the judge refuses")
    source = lines(tmp_path / "v.jsonl", TEXTS, ["bad", "not very good"] * 4)
    start = ["t5-label-text", "--tokenizer", tokenizer, "--labels", "not very good,bad"]
    session = opened(start, model, source)
    assert ("lm_head.weight" in {tensor.name for tensor in session.pool.tensors}) is not tied
    encoded = padded(tokenizer, TEXTS)
    with torch.inference_mode():
        columns = []
        for ids in ([2, 15, 16, 13, 4], [2, 14, 4]):
            labels = torch.tensor([ids] * 8)
            logits = model(encoded["input_ids"], encoded["attention_mask"], labels=labels).logits.double()
            losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
            columns.append(-losses.sum(dim=1))
        expected = torch.stack(columns, dim=1)
    torch.testing.assert_close(session.logits(8).double(), expected, rtol=1e-4, atol=1e-4)
    assert session.blocks(8)[0].outcomes.labels[0] == 1
    gradient = session.gradient(8, tmp_path / "gradient")
    assert all(each.abs().sum() > 0 for each in gradient.values())


def test_outputs_that_are_scaled_in_spite_of_the_config(opened, tokenizer, tmp_path, refused, monkeypatch):
    source = lines(tmp_path / "v.jsonl", TEXTS, ["bad", "good"] * 4)
    start = ["t5-label-text", "--tokenizer", tokenizer, "--labels", "good,bad"]
    read = transformers.AutoConfig.from_pretrained

    def taken_for_tied(*arguments, **options):
        config = read(*arguments, **options)
        config.tie_word_embeddings = config.scale_decoder_outputs = True
        return config

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", taken_for_tied)
    with refused.request("overrides the config's tie_word_embeddings for t5"):
        opened(start, t5(), source, config={"tie_word_embeddings": False})
    opened(start, t5(), source, config={"tie_word_embeddings": True})


def test_label_texts_that_are_not_there(opened, tokenizer, tmp_path, refused):
    source = lines(tmp_path / "v.jsonl", TEXTS, ["bad", "good"] * 4)
    with refused.request("start the judge with --labels"):
        opened(["t5-label-text", "--tokenizer", tokenizer], t5(), source)
    names = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    assert opened(["t5-label-text", "--tokenizer", tokenizer], t5(), source, config=names).logits(8).shape == (8, 2)
    with pytest.raises(SystemExit, match="at least two different"):
        command.judge_of(
            command.parser().parse_args(["t5-label-text", "--tokenizer", str(tokenizer), "--labels", "a,a"])
        )


def test_perplexity(opened, tokenizer, tmp_path):
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=12, n_layer=2, n_head=2, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    (tmp_path / "v.txt").write_text("\n".join(TEXTS) + "\n")
    session = opened(["causal-perplexity", "--tokenizer", tokenizer], model, tmp_path / "v.txt")
    (first, *_) = session.client.survey.figures.metrics
    assert (first.name, first.figure, first.by, first.lower_is_better) == ("perplexity", "nll", "tokens", True)
    nll, tokens = 0.0, 0
    for text in TEXTS:
        ids = padded(tokenizer, [text])["input_ids"]
        with torch.inference_mode():
            nll += cross_entropy(model(ids).logits[0, :-1].double(), ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
    blocks = session.blocks(8, block_samples=3)
    assert sum(block.sums.values[1] for block in blocks) == tokens
    assert sum(block.sums.values[0] for block in blocks) == pytest.approx(nll, rel=1e-5)
    assert math.exp(nll / tokens) == pytest.approx(len(WORDS), rel=0.5)


def test_buffers_are_as_exact_as_the_judge(opened, tokenizer, tmp_path):
    if not hasattr(transformers, "Gemma3TextConfig"):
        pytest.skip("no Gemma 3 in this version of transformers")
    config = transformers.Gemma3TextConfig(
        vocab_size=len(WORDS),
        hidden_size=24,  # Its root, by which embeddings are scaled, is no number of bf16.
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        intermediate_size=32,
    )
    model = transformers.Gemma3ForCausalLM(config).eval()
    (tmp_path / "v.txt").write_text("\n".join(TEXTS) + "\n")
    start = ["causal-perplexity", "--tokenizer", tokenizer]
    told = {"dtype": "bfloat16", "torch_dtype": "bfloat16"}
    sums = [opened(start, model, tmp_path / "v.txt", config=each).blocks(8)[0].sums.values for each in ({}, told)]
    assert list(sums[0]) == list(sums[1])
