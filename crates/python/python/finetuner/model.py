"""Models: opened, looked up, asked for embeddings."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

from . import _native
from ._progress import Progress
from .data import to_file
from .exception import ModelError, SpecError, unsupported

if TYPE_CHECKING:
    import numpy as np

#: What the original calls the halves of a model of texts and pictures.
TOWERS = {"clip-text": "text", "text": "text", "clip-vision": "image", "image": "image"}

#: The original's names of cross-encoders.
CROSS_ENCODERS = {
    "crossencoder-base-en": "cross-encoder/ms-marco-MiniLM-L-6-v2",
    "crossencoder-base-ml": "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1",
}

#: Families of networks that read pictures alone, and those that read both.
PICTURES = ("resnet", "mobilenet", "efficientnet", "squeezenet", "vit", "deit", "dinov2")
BOTH = ("clip", "open_clip", "siglip")


@dataclass
class SynthesisModels:
    """What `synthesize` uses: one encoder or more that relate texts to queries, and a cross-encoder that scores them."""

    relation_miner: Union[str, List[str]]
    cross_encoder: str


synthesis_model_en = SynthesisModels("sbert-base-en", "crossencoder-base-en")
synthesis_model_multi = SynthesisModels("distiluse-base-multi", "crossencoder-base-ml")


class InferenceEngine:
    """A model that is ready: items in, embeddings out. Made by `get_model` and `build_model`."""

    def __init__(self, native: _native.Model, name: str, tower: Optional[str]) -> None:
        self._native = native
        self._tower = tower
        #: What it was opened as.
        self.name = name

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return self._native.dimension

    @property
    def max_length(self) -> Optional[int]:
        """Tokens a text is cut to; none where it reads no texts."""
        return self._native.max_length

    @property
    def device(self) -> str:
        """What it computes on."""
        return self._native.device

    def encode(self, items: Sequence[str], role: Optional[str] = None, modality: Optional[str] = None) -> np.ndarray:
        """Embeddings `[items, dimension]`, float32, in the order of the items: texts, or paths of pictures.

        `role` is `query` or `document` where the model puts a prompt before a text. `modality` is `text` or `image` where it
        reads both.
        """
        import numpy

        if isinstance(items, (str, bytes)) or not isinstance(items, Sequence) and not hasattr(items, "__iter__"):
            raise TypeError(f"expected a list of texts or paths of pictures, got {type(items).__name__}")
        items = [os.fspath(item) if isinstance(item, os.PathLike) else item for item in items]
        for place, item in enumerate(items):
            if not isinstance(item, str):
                raise TypeError(f"item {place}: expected a text or the path of a picture, got {type(item).__name__}")
        found, cut = self._native.embed(items, self._modality(modality), role)
        if cut:
            warnings.warn(f"{cut} of {len(items)} texts were cut at {self.max_length} tokens", stacklevel=3)
        return numpy.frombuffer(found, dtype=numpy.float32).reshape(len(items), self.dimension)

    def _modality(self, asked: Optional[str]) -> str:
        known = self._native.modalities
        modality = TOWERS.get(asked, asked) if asked else self._tower or (known[0] if len(known) == 1 else None)
        if modality is None:
            raise ModelError(
                f"`{self.name}` reads texts and pictures; open it with `select_model='clip-text'` or `'clip-vision'`"
            )
        if modality not in known:
            raise ModelError(f"`{self.name}` reads {' and '.join(known)}, not {modality}")
        return modality

    def __repr__(self) -> str:
        return f"InferenceEngine({self.name!r}: {self._native.description}, on {self.device})"


def open_model(
    name: str,
    model_options: Optional[Dict[str, Any]] = None,
    select_model: Optional[str] = None,
    device: Optional[str] = None,
    is_onnx: bool = False,
) -> InferenceEngine:
    """Opens a folder, an alias, a repository of the hub or `mini`."""
    if is_onnx:
        unsupported("ONNX is not in this version", "leave out `is_onnx`: models run in this package itself")
    if select_model is not None and select_model not in TOWERS:
        raise SpecError(f"`select_model`: expected `clip-text` or `clip-vision`, got `{select_model}`")
    tower = TOWERS[select_model] if select_model else None
    options = model_fields(model_options)
    with Progress() as progress:
        native = _native.Model.open(name, device=device or "auto", on_transfer=progress.transfer, **options)
    engine = InferenceEngine(native, name, tower)
    if tower is not None:
        engine._modality(None)
    return engine


def model_fields(model_options: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """The original's `model_options` as fields of a run."""
    options = dict(model_options or {})
    fields: Dict[str, Any] = {}
    if "pooler" in options:
        fields["pooling"] = str(options.pop("pooler")).lower()
        if fields["pooling"] == "average":
            fields["pooling"] = "mean"
    given = options.pop("pooler_options", None) or {}
    if any(value != {"p": 3, "eps": 1e-6}.get(name) for name, value in given.items()):
        unsupported(
            f"`pooler_options` {given} cannot be set", "GeM begins with p = 3 and eps = 1e-6; leave out `pooler_options`"
        )
    for name in ("pooling", "max_length", "query_prompt", "document_prompt"):
        if name in options:
            fields[name] = options.pop(name)
    if options:
        known = "pooler, pooler_options, max_length, query_prompt, document_prompt"
        raise SpecError(f"`model_options`: {', '.join(map(repr, options))} is not known, known are {known}")
    return fields


def encode(model: InferenceEngine, data: Any, batch_size: int = 32) -> Any:
    """Embeddings of texts or pictures: a list gives a numpy array `[items, dimension]` of float32.

    A DocumentArray of docarray gets `.embedding` of every document filled in and is given back. `batch_size` is without
    effect: items are packed by their tokens.
    """
    if not isinstance(model, InferenceEngine):
        raise TypeError(f"expected a model of `get_model` or `build_model`, got {type(model).__name__}")
    documents = isinstance(data, Sequence) and not isinstance(data, (str, bytes)) and len(data) > 0
    if documents and all(hasattr(item, "embedding") for item in data):
        items = [getattr(item, "text", None) or getattr(item, "uri", None) or "" for item in data]
        for document, embedding in zip(data, model.encode(items)):
            document.embedding = embedding
        return data
    return model.encode(data)


def cos_sim(a: Any, b: Any) -> Any:
    """The cosine of two vectors, a float; of two matrices the cosine of every row with every row."""
    import numpy

    a, b = numpy.asarray(a), numpy.asarray(b)
    norms = numpy.linalg.norm(a, axis=-1, keepdims=a.ndim > 1), numpy.linalg.norm(b, axis=-1)
    found = (a @ b.T) / (norms[0] * norms[1])
    return float(found) if found.ndim == 0 else found


def evaluate(
    model: InferenceEngine, data: Any, index_data: Any = None, kind: Optional[str] = None, k: int = 20
) -> Dict[str, Any]:
    """Measures a model on queries, or on scored pairs: `{"k", "metrics", "original", "queries"}` or correlations."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path, kind = to_file(data, folder, kind=kind)
        index = None if index_data is None else to_file(index_data, folder, kind=kind)[0]
        found: Dict[str, Any] = json.loads(model._native.evaluate(path, index, kind, k))
        return found


def aliases() -> List[Dict[str, Any]]:
    """Every known short name, with `name`, `repository`, `family`, `dimension`, `description` and `task`."""
    found: List[Dict[str, Any]] = json.loads(_native.aliases())
    for alias in found:
        family = alias["family"]
        alias["task"] = (
            "text-to-image" if family in BOTH else "image-to-image" if family in PICTURES else "text-to-text"
        )
    return found


def list_models() -> List[str]:
    """The names of known models. Besides them a model is a folder or any repository of the hub."""
    return [alias["name"] for alias in aliases()]


def list_model_options() -> Dict[str, List[Dict[str, Any]]]:
    """What `model_options` takes, by model."""

    def options(alias: Dict[str, Any]) -> List[Dict[str, Any]]:
        names = [("pooler", "str"), ("pooler_options", "dict")]
        if alias["task"] != "image-to-image":
            names += [("max_length", "int"), ("query_prompt", "str"), ("document_prompt", "str")]
        return [{"name": name, "type": kind, "required": False, "default": None} for name, kind in names]

    return {alias["name"]: options(alias) for alias in aliases()}


def describe_models(task: Optional[str] = None) -> None:
    """Prints a table of known models; `task` is `text-to-text`, `text-to-image` or `image-to-image`."""
    tasks = ("text-to-text", "text-to-image", "image-to-image")
    if task == "mesh-to-mesh":
        unsupported("meshes are not in this version", f"`task` is one of {', '.join(tasks)}")
    if task is not None and task not in tasks:
        raise SpecError(f"`task`: `{task}` is not known, known are {', '.join(tasks)}")
    rows = [alias for alias in aliases() if task in (None, alias["task"])]
    names = max(len(alias["name"]) for alias in rows)
    print(f"{'name':{names}}  {'task':14}  {'output_dim':>10}  {'architecture':12}  description")
    for alias in rows:
        print(
            f"{alias['name']:{names}}  {alias['task']:14}  {alias['dimension']:>10}  {alias['family']:12}  "
            f"{alias['description']}"
        )
