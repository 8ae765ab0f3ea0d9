"""Models: opened, listed, asked for embeddings."""

import numpy
import pytest
from conftest import rows

import finetuner
from finetuner import exception


@pytest.fixture(scope="module")
def mini():
    return finetuner.build_model("mini", device="cpu")


def test_embeddings_are_float32_and_in_order(mini):
    texts = ["how do I freeze my card", "a loaf of bread", "freeze the card"]
    vectors = finetuner.encode(mini, texts)
    assert vectors.shape == (3, mini.dimension) and vectors.dtype == numpy.float32
    assert numpy.allclose(finetuner.encode(mini, texts[::-1])[::-1], vectors, atol=1e-6)
    assert finetuner.cos_sim(vectors[0], vectors[2]) > finetuner.cos_sim(vectors[0], vectors[1])
    assert isinstance(finetuner.cos_sim(vectors[0], vectors[1]), float)
    assert numpy.allclose(numpy.diag(finetuner.cos_sim(vectors, vectors)), 1, atol=1e-6)
    vectors[0, 0] = 1.0  # an array of one's own
    assert finetuner.encode(mini, []).shape == (0, mini.dimension)
    assert mini.device.startswith("cpu") and "mini" in repr(mini) and mini.max_length > 8


def test_documents_are_filled_in(mini):
    class Document:
        def __init__(self, text):
            self.text, self.uri, self.embedding = text, None, None

    documents = [Document("a"), Document("b")]
    assert finetuner.encode(mini, documents) is documents
    assert documents[1].embedding.shape == (mini.dimension,)


@pytest.mark.parametrize("items", ["hello", b"hello", 7, [1, 2], [None], ["a", b"b"]])
def test_what_is_no_list_of_texts_is_refused(mini, items):
    with pytest.raises(TypeError, match="expected a"):
        finetuner.encode(mini, items)


def test_what_cannot_be_opened(mini):
    with pytest.raises(exception.ModelError, match="no/such/folder"):
        finetuner.get_model("./no/such/folder")
    with pytest.raises(exception.ModelError, match="did you mean `bert-base-cased`"):
        finetuner.build_model("bert-base-case")
    with pytest.raises(exception.ModelError, match="HF_HUB_OFFLINE"):
        finetuner.get_model("https://huggingface.co/jinaai/jina-embedding-t-en-v1")
    with pytest.raises(exception.ModelError, match="log in"):
        finetuner.get_model("artifact-01jd3v9k3w7c8q2m6n5p4r1s0t")
    with pytest.raises(exception.UnsupportedError, match="folders"):
        finetuner.get_model("model.zip")
    with pytest.raises(exception.UnsupportedError, match="ONNX"):
        finetuner.build_model("mini", is_onnx=True)
    with pytest.raises(exception.ModelError, match="not image"):
        finetuner.build_model("mini", select_model="clip-vision")
    with pytest.raises(exception.SpecError, match="select_model"):
        finetuner.build_model("mini", select_model="vision")
    with pytest.raises(exception.SpecError, match="device"):
        finetuner.build_model("mini", device="tpu")
    with pytest.raises(TypeError, match="expected a model"):
        finetuner.encode("mini", ["a"])
    with pytest.raises(ValueError, match="role"):
        mini.encode(["a"], role="questions")


def test_options_of_a_model():
    short = finetuner.build_model("mini", {"pooler": "cls", "max_length": 4}, device="cpu")
    with pytest.warns(UserWarning, match="1 of 2 texts were cut at 4 tokens"):
        finetuner.encode(short, ["a", "one two three four five six"])
    with pytest.raises(exception.SpecError, match="pooler"):
        finetuner.build_model("mini", {"poller": "cls"})
    with pytest.raises(exception.UnsupportedError, match="GeM begins with p = 3"):
        finetuner.build_model("mini", {"pooler": "GeM", "pooler_options": {"p": 2.4}})


def test_models_are_listed(mini, capsys):
    names = finetuner.list_models()
    assert {"mini", "bert-base-en", "sbert-base-en", "clip-base-en", "resnet-base"} <= set(names)
    assert set(finetuner.list_model_options()) == set(names)
    assert finetuner.list_model_options()["resnet-base"][0]["name"] == "pooler"
    finetuner.describe_models(task="text-to-image")
    told = capsys.readouterr().out
    assert "clip-base-en" in told and "bert-base-en" not in told
    finetuner.describe_models()
    assert re_row("mini", mini.dimension, capsys.readouterr().out)
    with pytest.raises(exception.UnsupportedError, match="meshes"):
        finetuner.describe_models(task="mesh-to-mesh")
    with pytest.raises(exception.SpecError):
        finetuner.describe_models(task="text")


def re_row(name, dimension, table):
    return any(line.split()[0] == name and str(dimension) in line for line in table.splitlines())


def test_a_model_is_measured(mini):
    found = finetuner.evaluate(mini, list(rows(32)), kind="labelled", k=5)
    assert found["k"] == 5 and 0 < found["metrics"]["mrr"] <= 1
    with pytest.raises(exception.FileError, match="missing.csv"):
        finetuner.evaluate(mini, "missing.csv")
