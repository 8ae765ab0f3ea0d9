"""A folder of its own for every test, a user who has logged in nowhere, and one server for all."""

import json
import os
import pathlib
import random
import shutil
import string
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "crates" / "finetuner" / "tests" / "golden"

#: Longer than anything here takes; what takes longer has failed.
DEADLINE = 240.0

WORDS = ["card", "loan", "train", "bread", "river", "music", "cloud", "tree"]

#: What makes a run of `mini` short.
SHORT = {"model": "mini", "epochs": 1, "batch_size": 16, "learning_rate": 1e-4, "max_length": 8, "canary": False, "device": "cpu"}


def binary() -> str:
    """The `finetuner` program: `FINETUNER_BINARY`, else the one that cargo has built."""
    found = os.environ.get("FINETUNER_BINARY") or str(ROOT / "target" / "debug" / "finetuner")
    assert os.path.isfile(found), f"no `{found}`: build it (`cargo build`), or name it in FINETUNER_BINARY"
    return found


def rows(count: int, seed: int = 0):
    """Labelled texts, all different."""
    draw = random.Random(seed)
    for number in range(count):
        topic = WORDS[number % len(WORDS)]
        yield f"{topic} {draw.choice(WORDS)} {seed}{number}", topic


def write_rows(path, count, seed=0):
    lines = "".join(f"{text},{label}\n" for text, label in rows(count, seed))
    path.write_text("text,label\n" + lines)
    return str(path)


def wait_for(ask, what):
    """Asks again until there is an answer."""
    started = time.monotonic()
    while time.monotonic() - started < DEADLINE:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited for too long: {what}")


def download(home):
    """A tiny BERT where a download of `bert-base-cased` would lie."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = pathlib.Path(home, ".cache/huggingface/hub/models--google-bert--bert-base-cased")
    folder = model / "snapshots" / commit
    folder.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "encoders" / "bert" / name, folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *string.ascii_lowercase, *(f"##{one}" for one in string.ascii_lowercase + string.digits)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    sequence = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": place, "content": content, **plain} for place, content in enumerate(special)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": False},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": sequence,
            "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [special.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")},
        },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: place for place, piece in enumerate(pieces)},
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder with training data, and a home in it."""
    for name in list(os.environ):
        if name.startswith("FINETUNER_") and name != "FINETUNER_BINARY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.csv", 64)
    write_rows(tmp_path / "eval.csv", 32, seed=7)
    return tmp_path


class Server:
    """`finetuner serve` on loopback, with a folder of its own."""

    def __init__(self, folder):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("FINETUNER_") and name != "HOME"
        }
        environment.update(HOME=str(folder), HF_HUB_OFFLINE="1")
        download(folder)
        command = [binary(), "serve", "--data", str(folder / "data"), "--listen", "127.0.0.1:0"]
        self.log = open(folder / "server.log", "w+")
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.address = self.token = ""
        for line in self.process.stdout:
            if line.startswith("Finetuner listens on "):
                self.address = line.split()[-1]
            elif line.startswith("First key, shown this once: "):
                self.token = line.split()[-1]
            if self.address and self.token:
                break
        assert self.address and self.token, (folder / "server.log").read_text()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.stop()
