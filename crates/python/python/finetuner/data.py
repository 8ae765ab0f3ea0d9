"""Data as a run takes it: a file as it is, rows of memory written to one."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import random
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from ._json import dumps
from .exception import DataError, unsupported

#: Names that the first row of a CSV has when it is a header.
HEADERS = frozenset(
    "id anchor query question positive document answer negative text text1 text2 item sentence sentence1 sentence2 caption "
    "label category class score similarity image picture".split()
)

PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")


@dataclass
class CSVOptions:
    """How a CSV file is read; the original's options.

    `size` caps the rows, `sampling_rate` keeps that share of them (the same ones each time), `is_labeled` says that the second
    of two columns is a label. `convert_to_blob` is without effect: pictures are read from where they are. Meshes are not in
    this version, so `create_point_clouds` and `point_cloud_size` only take their defaults.
    """

    size: Optional[int] = None
    sampling_rate: Optional[float] = None
    dialect: Union[str, csv.Dialect] = "auto"
    encoding: str = "utf-8"
    is_labeled: bool = False
    convert_to_blob: bool = True
    create_point_clouds: bool = True
    point_cloud_size: int = 2048

    def __post_init__(self) -> None:
        if not self.create_point_clouds or self.point_cloud_size != 2048:
            unsupported("meshes are not in this version", "leave out `create_point_clouds` and `point_cloud_size`")
        if self.size is not None and self.size < 1:
            raise DataError(f"`size`: expected 1 or more, got {self.size}")
        if self.sampling_rate is not None and not 0 < self.sampling_rate <= 1:
            raise DataError(f"`sampling_rate`: expected a share above 0 and up to 1, got {self.sampling_rate}")

    @property
    def rewrites(self) -> bool:
        """Whether it asks for more than a run does by itself."""
        encoding = self.encoding.lower().replace("_", "-")
        plain = self.dialect == "auto" and encoding in ("utf-8", "utf8", "utf-8-sig")
        return not plain or self.size is not None or self.sampling_rate is not None


def to_file(
    data: Any, folder: str, options: Optional[CSVOptions] = None, kind: Optional[str] = None
) -> Tuple[str, Optional[str]]:
    """The path of the data and, where its shape says so, its kind.

    A path stays as it is. Everything else is written to a file of `folder` that is named by its content: the same rows have
    the same path, so a run over them can be resumed.
    """
    if options is not None and options.is_labeled:
        kind = kind or "labelled"
    if isinstance(data, (str, os.PathLike)):
        path = os.fspath(data)
        if options is None or not options.rewrites:
            return path, kind
        try:
            with open(path, encoding=options.encoding, newline="") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read `{path}`: {error}") from error
        return _write(folder, ".csv", _rewrite(text, options)), kind
    if hasattr(data, "read"):
        text = data.read()
        if isinstance(text, bytes):
            text = text.decode(options.encoding if options else "utf-8")
        return _write(folder, ".csv", _rewrite(text, options or CSVOptions())), kind
    if isinstance(data, (bytes, dict)) or not isinstance(data, Iterable):
        raise TypeError(
            "expected data as a path, an open file, or a list of texts, rows or dicts, "
            f"got {type(data).__name__}"
        )
    rows = list(data)
    if not rows:
        raise DataError("expected rows, got none")
    objects = [_row(row, kind, number) for number, row in enumerate(rows, 1)]
    return _write(folder, ".jsonl", "".join(dumps(row) + "\n" for row in objects)), kind


def texts(data: Any, name: str) -> List[str]:
    """A list of texts; of a file every cell of every row."""
    if isinstance(data, (str, os.PathLike)):
        path = os.fspath(data)
        try:
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read()
        except OSError as error:
            raise DataError(f"`{name}`: cannot read `{path}`: {error}") from error
        if not path.endswith(".csv"):
            return [line.strip() for line in text.splitlines() if line.strip()]
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        if rows and _is_header(rows[0]):
            rows = rows[1:]
        return [cell for row in rows for cell in row if cell.strip()]
    found = [item if isinstance(item, str) else getattr(item, "text", None) for item in data]
    for number, item in enumerate(found, 1):
        if not isinstance(item, str) or not item.strip():
            raise DataError(f"`{name}`, item {number}: expected a text, got {item!r}")
    return found  # type: ignore[return-value]


def _row(row: Any, kind: Optional[str], number: int) -> Dict[str, Any]:
    """A row as an object with the names of its columns."""
    if isinstance(row, dict):
        return {name: _item(value) for name, value in row.items()}
    if isinstance(row, str):
        return {"text": _item(row)}
    if hasattr(row, "tags") and hasattr(row, "chunks"):
        return _document(row, number)
    if not isinstance(row, Sequence) or isinstance(row, bytes):
        raise DataError(f"row {number}: expected a text, a tuple or a dict, got {type(row).__name__}")
    values = [_item(value) for value in row]
    names = _names(values, kind)
    if names is None:
        raise DataError(
            f"row {number}: {len(values)} values are none of (text,), (query, document), (text, label), (text, text, score) "
            f"and (anchor, positive, negative, …); give dicts with the names of the columns, or `kind`"
        )
    return dict(zip(names, values))


def _names(values: List[Any], kind: Optional[str]) -> Optional[List[str]]:
    """The names of columns that are known by their places."""
    count = len(values)
    negatives = [f"negative_{number}" for number in range(1, count - 1)]
    if kind == "labelled_pairs":
        return ["sentence1", "sentence2", "label"] if count == 3 else None
    if count == 1:
        return ["text"]
    if count == 2:
        is_label = kind == "labelled" or not isinstance(values[1], str)
        return ["text", "label"] if is_label else ["anchor", "positive"]
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in values]
    if count == 3 and numbers[2] and kind in (None, "scored"):
        return ["sentence1", "sentence2", "score"]
    if not any(numbers):
        return ["anchor", "positive", *negatives]
    texts_first = numbers.index(True)
    if texts_first >= 3 and all(numbers[texts_first:]):
        scores = [f"score_{number}" for number in range(1, count - texts_first + 1)]
        return ["anchor", "positive", *negatives[: texts_first - 2], *scores]
    return None


def _item(value: Any) -> Any:
    """A picture by its whole path: the file that it stands in is elsewhere."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.lower().endswith(PICTURES) and os.path.isfile(value):
        return os.path.abspath(value)
    return value


def _document(document: Any, number: int) -> Dict[str, Any]:
    """A document of docarray: its content and its label, or its two parts and their score."""
    chunks = list(document.chunks or [])
    if len(chunks) == 2:
        parts = [_content(chunk, number) for chunk in chunks]
        if "finetuner_score" in document.tags:
            return {"sentence1": parts[0], "sentence2": parts[1], "score": document.tags["finetuner_score"]}
        return {"anchor": parts[0], "positive": parts[1]}
    row = {"text": _content(document, number)}
    if "finetuner_label" in document.tags:
        row["label"] = document.tags["finetuner_label"]
    return row


def _content(document: Any, number: int) -> Any:
    content = getattr(document, "text", None) or getattr(document, "uri", None)
    if not content:
        raise DataError(f"document {number}: expected `text` or `uri`; blobs and tensors are not taken, write them to files")
    return _item(content)


def _rewrite(text: str, options: CSVOptions) -> str:
    """The rows that the options ask for, in the dialect that a run reads."""
    dialect: Any = options.dialect
    if dialect == "auto":
        try:
            dialect = csv.Sniffer().sniff(text[:1024])
        except csv.Error:
            dialect = "excel"
    try:
        rows = [row for row in csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), dialect) if row]
    except csv.Error as error:
        raise DataError(f"the CSV cannot be read: {error}") from error
    header = rows[:1] if rows and _is_header(rows[0]) else []
    rows = rows[len(header) :]
    if options.sampling_rate is not None:
        kept = max(1, round(len(rows) * options.sampling_rate))
        chosen = sorted(random.Random(42).sample(range(len(rows)), min(kept, len(rows))))
        rows = [rows[place] for place in chosen]
    rows = header + rows[: options.size]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _is_header(row: List[str]) -> bool:
    names = [cell.strip().lower().replace(" ", "_").rstrip("0123456789_") or "_" for cell in row]
    return all(name in HEADERS or cell.strip().lower() in HEADERS for name, cell in zip(names, row))


def _write(folder: str, ending: str, text: str) -> str:
    content = text.encode("utf-8")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, hashlib.sha256(content).hexdigest()[:16] + ending)
    if not os.path.exists(path):
        partial = f"{path}.{os.getpid()}.partial"
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    return path
