"""What `train_data` takes."""

import csv
import io
import json
import pathlib

import pytest

import finetuner
from finetuner.data import CSVOptions, texts, to_file
from finetuner.exception import DataError, UnsupportedError


def written(data, **arguments):
    path, kind = to_file(data, "data", **arguments)
    text = pathlib.Path(path).read_text(encoding="utf-8")
    if path.endswith(".csv"):
        return list(csv.reader(io.StringIO(text))), kind
    return [json.loads(line) for line in text.splitlines()], kind


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("a", "text"),
        (("a", "b"), "anchor positive"),
        (("a", 3), "text label"),
        (["a", "b", "c"], "anchor positive negative_1"),
        (("a", "b", 0.5), "sentence1 sentence2 score"),
        (("a", "b", "c", "d", "e"), "anchor positive negative_1 negative_2 negative_3"),
        (("a", "b", "c", 0.5), "anchor positive negative_1 score_1"),
        (("a", "b", "c", "d", 0.5, 1), "anchor positive negative_1 negative_2 score_1 score_2"),
        ({"query": "a", "document": "b"}, "query document"),
    ],
)
def test_rows_of_memory(row, names):
    (found,), kind = written([row])
    assert list(found) == names.split() and kind is None


def test_kinds_that_the_shape_does_not_say():
    assert written([("a", "b")], kind="labelled")[0] == [{"text": "a", "label": "b"}]
    assert written([("a", "b", 1)], kind="labelled_pairs")[0] == [{"sentence1": "a", "sentence2": "b", "label": 1}]
    assert written([("a", "b")], options=CSVOptions(is_labeled=True)) == ([{"text": "a", "label": "b"}], "labelled")


def test_equal_rows_have_one_path():
    first, _ = to_file([("a", "b")], "data")
    assert to_file([["a", "b"]], "data")[0] == first != to_file([("a", "c")], "data")[0]


def test_documents():
    class Document:
        def __init__(self, text=None, uri=None, chunks=(), **tags):
            self.text, self.uri, self.chunks, self.tags = text, uri, chunks, tags

    found, _ = written(
        [
            Document("a", finetuner_label="x"),
            Document(chunks=[Document("a"), Document("b")], finetuner_score=0.5),
            Document(chunks=[Document("a"), Document(uri="b.png")]),
        ]
    )
    assert found == [
        {"text": "a", "label": "x"},
        {"sentence1": "a", "sentence2": "b", "score": 0.5},
        {"anchor": "a", "positive": "b.png"},
    ]
    with pytest.raises(DataError, match="document 1: expected `text` or `uri`"):
        written([Document()])
    with pytest.raises(AttributeError, match="docarray"):
        finetuner.DocumentArray


def test_pictures_by_their_whole_path(workplace):
    (workplace / "a.png").write_bytes(b"")
    assert written([("a.png", 1)])[0] == [{"text": str(workplace / "a.png"), "label": 1}]


def test_options_of_a_csv(workplace):
    (workplace / "a.tsv").write_text("".join(f"text {number}\tother {number}\n" for number in range(10)), encoding="latin-1")
    found, _ = written("a.tsv", options=CSVOptions(dialect="excel-tab", size=3))
    assert found == [[f"text {number}", f"other {number}"] for number in range(3)]
    half, _ = written("a.tsv", options=CSVOptions(sampling_rate=0.5))
    assert len(half) == 5 and half == written("a.tsv", options=CSVOptions(sampling_rate=0.5))[0]
    (workplace / "b.csv").write_text("anchor,positive\né,b\nc,d\n", encoding="latin-1")
    found, _ = written("b.csv", options=CSVOptions(encoding="latin-1", size=1))
    assert found == [["anchor", "positive"], ["é", "b"]]
    assert to_file("b.csv", "data", CSVOptions(is_labeled=True)) == ("b.csv", "labelled")
    assert written(io.StringIO("a,b\n"))[0] == [["a", "b"]]


def test_what_is_no_data():
    for data in (7, {"a": 1}, b"a", None):
        with pytest.raises(TypeError, match="expected data as a path"):
            to_file(data, "data")
    for data in ([], [7], [("a", "b", "c", 1, "d")]):
        with pytest.raises(DataError):
            to_file(data, "data")
    with pytest.raises(DataError, match="cannot read `missing.csv`"):
        to_file("missing.csv", "data", CSVOptions(size=1))
    with pytest.raises(UnsupportedError, match="meshes"):
        CSVOptions(point_cloud_size=7)
    with pytest.raises(DataError, match="sampling_rate"):
        CSVOptions(sampling_rate=2)


def test_texts_for_synthesis(workplace):
    (workplace / "a.csv").write_text("a,b\nc,\n")
    assert texts("a.csv", "query_data") == ["a", "b", "c"]
    with pytest.raises(DataError, match="query_data.*item 2"):
        texts(["a", ""], "query_data")
