"""JSON files are read whole or refused in one line that names the file."""

import json

import pytest
from physique.bodymodel import json_files
from physique.bodymodel.json_files import read_json


def test_what_was_written_is_read(tmp_path):
    content = {"people": [{"points": [1.5, -2.0, 1e-3]}], "name": "é"}
    path = tmp_path / "good.json"
    path.write_text(json.dumps(content))
    assert read_json(path) == content


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[1, 2", b"nothing", b"\xff\xfe\x00", b"[NaN]", b"[Infinity]", b"[" * 100_000, b'{"a": 1}{"b": 2}'],
    ids=["empty", "brace", "cut", "words", "bytes", "nan", "infinity", "deep", "two"],
)
def test_damaged_text_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"bad\.json: expected JSON, got .*; ") as caught:
        read_json(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(path))


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_BYTES", 3)
    path = tmp_path / "large.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"large\.json: expected at most 3 bytes, got 6; split the file"):
        read_json(path)


def test_what_is_not_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a .json file, got a folder"):
        read_json(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.json: expected a \.json file, got no file"):
        read_json(tmp_path / "none.json")
