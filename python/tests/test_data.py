"""Tables, and what their columns and classes mean."""

import io
import json

import numpy as np
import pytest

from soup_judge import Dataset, Refused
from soup_judge.classes import align, are_made_up, names_of
from soup_judge.data import Cache, decode_image, digest_of, read_prompts, read_table

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq
from PIL import Image


def table(path, text, **options):
    path.write_text(text)
    return read_table(Dataset("d", str(path), {name.replace("_", "-"): value for name, value in options.items()}))


GLUE = [
    (["sentence", "label"], (["sentence"])),
    (["sentence1", "sentence2", "label", "idx"], ["sentence1", "sentence2"]),
    (["question1", "question2", "label"], ["question1", "question2"]),
    (["premise", "hypothesis", "label"], ["premise", "hypothesis"]),
    (["question", "sentence", "label"], ["question", "sentence"]),
    (["text", "label"], ["text"]),
]


@pytest.mark.parametrize(("columns", "expected"), GLUE)
def test_texts_by_their_usual_names(tmp_path, columns, expected):
    found = table(tmp_path / "t.csv", ",".join(columns) + "\n" + ",".join(f"<{name}>" for name in columns) + "\n")
    texts, pairs = found.texts()
    assert [texts, *([pairs] if pairs else [])] == [[f"<{name}>"] for name in expected]
    assert found.labels() == (["<label>"], None)


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("a,b\n1,2\n", {}, "which text is meant"),
        ("text,sentence\n1,2\n", {}, "which text is meant"),
        ("a,b\n1,2\n", {"text_column": "c"}, "no column c, but a, b"),
        ("a,b\n1,2\n", {"text_pair_column": "b"}, "without text-column"),
    ],
)
def test_texts_that_are_not_told(tmp_path, text, options, why):
    with pytest.raises(Refused, match=why):
        table(tmp_path / "t.csv", text, **options).texts()


def test_columns_may_be_named(tmp_path):
    found = table(tmp_path / "t.csv", "a,b,c\n1,2,3\n", text_column="b", text_pair_column="a", label_column="c")
    assert found.texts() == (["2"], ["1"])
    assert found.labels() == (["3"], None)


def test_label_columns_are_not_guessed(tmp_path):
    with pytest.raises(Refused, match=r"just one of label, labels, it has label, labels; --label-column names it"):
        table(tmp_path / "t.csv", "label,labels\n1,2\n").labels()


def test_quotes_of_csv_and_of_tsv(tmp_path):
    assert table(tmp_path / "t.csv", 'text,label\n"a, ""b""\nc",1\n').texts()[0] == ['a, "b"\nc']
    assert table(tmp_path / "t.tsv", 'text\tlabel\n"a\t1\n').texts()[0] == ['"a']
    assert table(tmp_path / "t.jsonl", '{"text": "a\u2028b"}\n\n').texts()[0] == ["a\u2028b"]
    assert table(tmp_path / "t.txt", "one\n\ntwo\n").texts()[0] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("t.csv", "", "no rows"),
        ("t.csv", "a,b\n1\n", "row 0 has not as many fields"),
        ("t.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("t.jsonl", "{\n", "cannot be read"),
        ("t.parquet", "no parquet", "cannot be read"),
        ("t.xyz", "x", "has no .parquet"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, why):
    with pytest.raises(Refused, match=why):
        table(tmp_path / name, text)


def test_values_of_another_kind(tmp_path):
    with pytest.raises(Refused, match="text of row 1 is 3, no text"):
        table(tmp_path / "t.jsonl", '{"text": "a"}\n{"text": 3}\n').texts()
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "x.png"}], "label": [0]}), tmp_path / "t.parquet")
    with pytest.raises(Refused, match="row 0 has no image inside"):
        read_table(Dataset("d", str(tmp_path / "t.parquet"))).images()


def test_folders_have_splits(tmp_path):
    (tmp_path / "data").mkdir()
    for split, count in (("train", 2), ("validation", 1)):
        for part in range(count):
            path = tmp_path / "data" / f"{split}-0000{part}-of-0000{count}.parquet"
            pq.write_table(pa.table({"text": [f"{split}{part}"]}), path)

    def texts(**options):
        return read_table(Dataset("d", f"file://{tmp_path}", options)).texts()[0]

    assert texts(split="train") == ["train0", "train1"]
    assert texts(split="validation") == ["validation0"]
    with pytest.raises(Refused, match="several datasets"):
        texts()
    with pytest.raises(Refused, match="of test"):
        texts(split="test")
    with pytest.raises(Refused, match="does not name it"):
        read_table(Dataset("d", str(path), {"split": "train"}))
    with pytest.raises(Refused, match="there is no s3://bucket"):
        read_table(Dataset("d", "s3://bucket/x.parquet"))


def test_names_of_classes_in_a_parquet_file(tmp_path):
    features = {
        "info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}}
    }
    rows = pa.table({"text": ["a"], "label": [1]})
    pq.write_table(rows.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "t.parquet")
    assert read_table(Dataset("d", str(tmp_path / "t.parquet"))).labels() == ([1], ["no", "yes"])
    pq.write_table(rows.replace_schema_metadata({"huggingface": "{"}), tmp_path / "t.parquet")
    assert read_table(Dataset("d", str(tmp_path / "t.parquet"))).labels() == ([1], None)


OURS = ["cat", "T - shirt / top", "owl"]


@pytest.mark.parametrize(
    ("values", "theirs", "ours", "labels", "classes", "note"),
    [
        ([0, 2], None, OURS, [0, 2], [0, 2], ""),
        ([0, 1], ["owl", "T-shirt_top"], OURS, [2, 1], [1, 2], "renumbered"),
        ([0, 1], OURS, OURS, [0, 1], [0, 1, 2], ""),
        (["owl", "cat"], None, OURS, [2, 0], [0, 2], "renumbered"),
        (["2", "0"], None, OURS, [2, 0], [0, 2], ""),
        ([1], ["0", "1"], OURS, [1], [0, 1], "taken for the model's"),
        ([1], ["no", "yes"], ["LABEL_0", "LABEL_1"], [1], [0, 1], "nothing to be compared with"),
        ([1], ["LABEL_0", "LABEL_1"], ["0", "1"], [1], [0, 1], ""),
    ],
)
def test_classes_by_name(values, theirs, ours, labels, classes, note):
    found = align("d", values, theirs, ours)
    assert (found.labels.tolist(), found.classes.tolist()) == (labels, classes)
    assert (note in found.note) if note else not found.note


@pytest.mark.parametrize(
    ("values", "theirs", "ours", "why"),
    [
        ([0], ["fox"], OURS, "called fox; it has cat"),
        ([0], ["a", "b", "c"], ["0", "1"], "called a, b, c"),
        ([0], ["Crane"], ["crane", "CRANE"], "or several, called Crane"),
        ([0, 1], ["cat", "Cat"], OURS, "several of its classes are the same"),
        ([3], None, OURS, "row 0 is 3, none of 3 classes"),
        ([0, None], None, OURS, "row 1 is None"),
        ([0.5], None, OURS, "row 0 is 0.5"),
        ([True], None, OURS, "row 0 is True"),
        (["a"], None, ["0", "1"], "labels are names .*classes have none"),
    ],
)
def test_classes_that_match_nothing(values, theirs, ours, why):
    with pytest.raises(Refused, match=why):
        align("d", values, theirs, ours)


def test_names_of_a_config():
    assert names_of({"id2label": {"1": "b", "0": "a"}}) == ["a", "b"]
    assert names_of({}) == ["LABEL_0", "LABEL_1"] and are_made_up(names_of({"num_labels": 5}))
    for wrong in ({"0": "a", "2": "b"}, {}, ["a"], {"x": "a"}):
        with pytest.raises(Refused, match="id2label"):
            names_of({"id2label": wrong})


def test_a_cache_makes_samples_once_while_there_is_room():
    made = []

    def prepare(positions):
        made.extend(positions)
        return np.array([[position, position] for position in positions], np.float32)

    cache = Cache(prepare, limit=3 * 8)
    assert cache([4, 2])[:, 0].tolist() == [4, 2]
    assert cache([2, 7, 4, 9])[:, 0].tolist() == [2, 7, 4, 9]
    assert cache([9, 7])[:, 0].tolist() == [9, 7]
    assert made == [4, 2, 7, 9, 9]


def test_images_have_one_channel_or_three():
    stream = io.BytesIO()
    Image.new("RGBA", (2, 3), (10, 20, 30, 255)).save(stream, "PNG")
    assert decode_image(stream.getvalue(), 3).tolist() == [[[10, 20, 30]] * 2] * 3
    assert decode_image(stream.getvalue(), 1).shape == (3, 2, 1)
    with pytest.raises(ValueError, match="not 4"):
        decode_image(stream.getvalue(), 4)
    with pytest.raises(OSError, match="cannot identify"):
        decode_image(b"text", 3)


def test_digests_are_of_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    (tmp_path / "b" / "file").rename(tmp_path / "b" / "other")
    assert digest_of(tmp_path / "a") != digest_of(tmp_path / "b")
    assert digest_of(tmp_path / "a" / "file") != digest_of(tmp_path / "b" / "other")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ["x"]}', '{"a": ["x"], "b": []}', '{"a": ["x"], "b": [1]}'])
def test_prompts_that_are_none(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(SystemExit, match="--prompts"):
        read_prompts(tmp_path / "p.json")
