"""Mapped soups: views of the file, in every dtype, and files that are refused."""

import json
import sys

import ml_dtypes
import numpy as np
import pytest
from helpers import canonical
from safetensors.numpy import save_file

from soup_judge import Refused, Schema, Tensor
from soup_judge.tensors import open_tensors, read_schema, write_tensors

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "d": np.array([1.5, -2.5]),
    "h": np.array([0.5], np.float16),
    "b": np.array([[1.0, -3.0]], ml_dtypes.bfloat16),
    "count": np.array(7, np.int64),
    "mask": np.array([1, 0, 255], np.uint8),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def soup(tmp_path):
    path = tmp_path / "soup.safetensors"
    pairs = canonical(ARRAYS)
    write_tensors(path, pairs)
    return path, [tensor for tensor, _ in pairs]


def test_views_of_every_dtype(soup):
    path, expected = soup
    tensors = open_tensors(path, expected)
    assert list(tensors) == ["count", "d", "empty", "w", "b", "h", "mask"]
    for name, array in ARRAYS.items():
        view = tensors[name]
        assert (view.dtype, view.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(view, array)
        assert not view.flags.writeable and not view.flags.owndata
        assert view.flags.aligned
        np.testing.assert_array_equal(tensors.float32(name), array.astype(np.float32))
    assert tensors.bits("b").tolist() == [[0x3F80, 0xC040]]
    assert np.shares_memory(tensors.float32("w"), tensors["w"])
    assert tensors.tensor("b") == Tensor("b", "BF16", (1, 2))


def test_bf16_without_ml_dtypes(soup, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    tensors = open_tensors(*soup)
    with pytest.raises(TypeError, match=r"b is BF16.*ml_dtypes.*float32"):
        tensors["b"]
    assert tensors.float32("b").tolist() == [[1.0, -3.0]]
    assert tensors["w"].shape == (2, 3)


def test_files_of_the_safetensors_package(tmp_path):
    save_file(ARRAYS, tmp_path / "theirs", metadata={"format": "pt"})
    expected = read_schema(tmp_path / "theirs")
    assert [tensor.name for tensor in expected] == ["count", "d", "empty", "w", "b", "h", "mask"]
    tensors = open_tensors(tmp_path / "theirs", expected)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(tensors[name], array)


def written(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data", "length", "text"),
    [
        (b"{", b"", None, "safetensors"),
        (b"[]", b"", None, "no JSON object"),
        (b"\xff\xfe", b"", None, "safetensors"),
        (b"[" * 100_000, b"", None, "safetensors"),
        ({}, b"", 1 << 40, "claims 1099511627776 bytes"),
        ({"a": {**ONE, "dtype": "F4"}}, b"abcd", None, "a is F4"),
        ({"a": {**ONE, "shape": [2]}}, b"abcd", None, "data of a"),
        ({"a": {**ONE, "shape": [-1]}}, b"abcd", None, "a has numbers"),
        ({"a": {**ONE, "shape": [True]}}, b"abcd", None, "a has numbers"),
        ({"a": {**ONE, "shape": ["1"]}}, b"abcd", None, "safetensors"),
        ({"a": ONE}, b"abc", None, "data of a"),
        ({"a": {**ONE, "data_offsets": [4, 0]}}, b"abcd", None, "data of a"),
        ({"a": {**ONE, "data_offsets": [-4, 0]}}, b"abcd", None, "a has numbers"),
        ({"a": {"dtype": "F32"}}, b"abcd", None, "safetensors"),
        ({"a": 1}, b"abcd", None, "safetensors"),
        (b'{"a":%b,"a":%b}' % ((json.dumps(ONE).encode(),) * 2), b"abcd", None, "twice"),
    ],
)
def test_what_is_no_safetensors_file(tmp_path, header, data, length, text):
    with pytest.raises(Refused, match=text):
        read_schema(written(tmp_path / "file", header, data, length))


def test_files_too_short(tmp_path):
    (tmp_path / "file").write_bytes(b"1234567")
    with pytest.raises(Refused, match="shorter than 8"):
        read_schema(tmp_path / "file")


def test_tensors_that_are_not_the_runs(soup):
    path, expected = soup
    with pytest.raises(Refused, match=r"missing more, unknown -"):
        open_tensors(path, [*expected, Tensor("more", "F32", (1,))])
    with pytest.raises(Refused, match=r"missing -, unknown mask \(U8 \[3\]\)"):
        open_tensors(path, expected[:-1])
    with pytest.raises(Refused, match="another order"):
        open_tensors(path, expected[::-1])


def test_a_schema_compares_names_and_shapes():
    schema = Schema(tuple(Tensor(name, "F32", (2, n)) for n, name in enumerate("abc")))
    schema.expect({"a": (2, 0), "b": [2, 1], "c": (2, 2)})
    schema.expect({"a": (2, 0), "b": [2, 1], "d": (1,)}, optional=["d"], unused=["c"])
    with pytest.raises(Refused) as raised:
        schema.expect({"a": (2, 0), "b": (1, 2), "d": ()})
    assert str(raised.value) == (
        "the pool's tensors are not the model's: it lacks d; the model does not know c; "
        "it has b of [2, 1] instead of [1, 2]"
    )
    with pytest.raises(Refused, match="and 12 more"):
        schema.expect({f"t{n}": () for n in range(20)}, unused="abc")


def test_the_pools_texts():
    schema = Schema((), config_text='{"a": 1}', preprocessor_text="[1]")
    assert schema.config == {"a": 1}
    with pytest.raises(Refused, match=r"preprocessor_config.json is not a JSON object"):
        _ = schema.preprocessor
    with pytest.raises(Refused, match=r"config.json is not JSON"):
        _ = Schema((), config_text="{").config
    with pytest.raises(Refused, match=r"no config.json"):
        _ = Schema(()).config
