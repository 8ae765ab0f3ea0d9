"""Trains small image models and CLIPs for a step, and loads the saved folders in the libraries their weights came from.

    python load_pictures.py FINETUNER

FINETUNER is the binary. Each model starts from random weights of its library, is trained by one run of `finetuner fit` on
pictures made here, and is loaded again: in transformers, timm, open_clip or sentence-transformers. Prints one line of JSON per
folder: {"model", "loaded_with", "difference": the largest between embeddings of unit length, "equal": below 1e-5}.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
from PIL import Image

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 40), "blue": (30, 40, 220), "white": (250, 250, 250)}
TEXTS = ["a red picture", "green", "something blue, 12!", "white"]
IMAGENET = dict(
    do_resize=True,
    size={"height": 64, "width": 64},
    resample=2,
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    image_mean=[0.485, 0.456, 0.406],
    image_std=[0.229, 0.224, 0.225],
)


def photos(folder):
    random = np.random.default_rng(0)
    rows = ["text,image"]
    for name, colour in COLOURS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(3):
            noise = random.integers(-40, 40, (64, 64, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
            rows.append(f"{name} {number},photos/{name}/{number}.png")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return sorted((folder / "photos").rglob("*.png"))


def clip_tokenizer(folder):
    """The tokenizer of CLIP, from the list of merges that open_clip brings along."""
    import open_clip
    from transformers import CLIPTokenizerFast
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    merges = gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = [tuple(merge.split()) for merge in merges[1 : 49152 - 256 - 2 + 1]]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(merge) for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = (CLIPTokenizerFast or CLIPTokenizer)(vocab=vocabulary, merges=merges)
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)


def perturbed(model):
    """Norms, biases and running statistics other than 1 and 0, so that a mistake with them shows."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.dtype.is_floating_point and tensor.ndim == 1:
            noise = 0.1 * torch.randn(tensor.shape, generator=generator)
            tensor.copy_((tensor + noise).abs() + 0.1 if "var" in name else tensor + noise)
    return model.eval()


def make_clip(folder):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    text = dict(sizes, vocab_size=49408, bos_token_id=49406, eos_token_id=49407)
    config = CLIPConfig(text_config=text, vision_config=dict(sizes, image_size=64, patch_size=16), projection_dim=32)
    perturbed(CLIPModel(config)).save_pretrained(folder)
    edge = {"shortest_edge": 64}
    CLIPImageProcessor(size=edge, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
    clip_tokenizer(folder)


def make_joined(folder):
    """Texts as `clip-ViT-B-32-multilingual-v1` has them, DistilBERT with a dense layer into the space of CLIP, and that CLIP."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer
    from tokenizers import BertWordPieceTokenizer
    from transformers import DistilBertConfig, DistilBertModel, DistilBertTokenizerFast

    (folder / "clip").mkdir()
    make_clip(folder / "clip")
    (folder / "words.txt").write_text("\n".join(TEXTS * 20))
    words = BertWordPieceTokenizer()
    words.train([str(folder / "words.txt")], vocab_size=120, show_progress=False)
    sizes = dict(vocab_size=words.get_vocab_size(), dim=64, hidden_dim=96, n_layers=2, n_heads=4, max_position_embeddings=40)
    perturbed(DistilBertModel(DistilBertConfig(**sizes))).save_pretrained(folder / "distilbert")
    DistilBertTokenizerFast(tokenizer_object=words._tokenizer, model_max_length=40).save_pretrained(folder / "distilbert")
    transformer = Transformer(str(folder / "distilbert"))
    dense = Dense(in_features=64, out_features=32, bias=False, activation_function=torch.nn.Identity())
    SentenceTransformer(modules=[transformer, Pooling(64), dense], device="cpu").save(str(folder / "texts"))
    return ["--model", folder / "texts", "--image-model", folder / "clip"]


def make_resnet(folder):
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], layer_type="basic")
    perturbed(ResNetModel(config)).save_pretrained(folder)
    ConvNextImageProcessor(**{**IMAGENET, "size": {"shortest_edge": 64}, "crop_pct": 1.0}).save_pretrained(folder)
    json.dump(IMAGENET | {"image_processor_type": "ViTImageProcessor"}, open(folder / "preprocessor_config.json", "w"))


def make_vit(folder):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    config = ViTConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=64)
    perturbed(ViTModel(config, add_pooling_layer=False)).save_pretrained(folder)
    ViTImageProcessor(**IMAGENET).save_pretrained(folder)


def make_timm(name):
    def make(folder):
        import timm
        from safetensors.torch import save_file

        torch.manual_seed(3)
        model = perturbed(timm.create_model(name, num_classes=0))
        save_file(model.state_dict(), folder / "model.safetensors")
        cut = dict(input_size=[3, 64, 64], interpolation="bilinear", crop_pct=1.0, fixed_input_size=False)
        cut |= dict(mean=IMAGENET["image_mean"], std=IMAGENET["image_std"])
        config = {"architecture": name, "num_classes": 0, "num_features": model.num_features, "pretrained_cfg": cut}
        json.dump(config, open(folder / "config.json", "w"))

    return make


def with_transformers(folder, paths):
    from transformers import AutoImageProcessor, AutoModel

    pixels = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pixels = pixels([Image.open(path).convert("RGB") for path in paths], return_tensors="pt")["pixel_values"]
    model = AutoModel.from_pretrained(folder).eval()
    state = model(pixels).last_hidden_state
    return state.mean((2, 3)) if state.ndim == 4 else state[:, 0]


def with_timm(folder, paths):
    import timm

    # timm looks for the name `local-dir:`; its data transform is built from the same configuration.
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return model(torch.stack([transform(Image.open(path).convert("RGB")) for path in paths]))


def clip_with_transformers(folder, paths):
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    words = AutoTokenizer.from_pretrained(folder)(TEXTS, return_tensors="pt", padding=True)
    pixels = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pixels = pixels([Image.open(path) for path in paths], return_tensors="pt")["pixel_values"]
    texts = model.text_projection(model.text_model(**words).pooler_output)
    pictures = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    return torch.cat([texts, pictures])


def clip_with_sentence_transformers(folder, paths):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu").eval()
    texts = model.encode(TEXTS, convert_to_tensor=True)
    return torch.cat([texts, model.encode([Image.open(path) for path in paths], convert_to_tensor=True)])


def joined_with_both(folder, paths):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

    texts = SentenceTransformer(str(folder / "text"), device="cpu").encode(TEXTS, convert_to_tensor=True)
    pixels = AutoImageProcessor.from_pretrained(folder / "image", use_fast=False)
    pixels = pixels([Image.open(path) for path in paths], return_tensors="pt")["pixel_values"]
    model = CLIPVisionModelWithProjection.from_pretrained(folder / "image").eval()
    return torch.cat([texts, model(pixel_values=pixels).image_embeds])


CASES = [
    ("ResNet of transformers", make_resnet, False, [("transformers", with_transformers)]),
    ("ViT of transformers", make_vit, False, [("transformers", with_transformers)]),
    ("resnet18 of timm", make_timm("resnet18"), False, [("timm", with_timm)]),
    ("mobilenetv2_100 of timm", make_timm("mobilenetv2_100"), False, [("timm", with_timm)]),
    (
        "CLIP of transformers",
        make_clip,
        True,
        [("transformers", clip_with_transformers), ("sentence-transformers", clip_with_sentence_transformers)],
    ),
    (
        "multilingual texts with the image tower of a CLIP",
        make_joined,
        True,
        [("sentence-transformers and transformers", joined_with_both)],
    ),
]


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@torch.no_grad()
def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    finetuner = str(Path(sys.argv[1]).resolve())
    good = True
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        paths = photos(place)
        (place / "texts.txt").write_text("\n".join(TEXTS) + "\n")

        def run(*arguments):
            subprocess.run([finetuner, *map(str, arguments)], check=True, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

        for name, make, both, loaders in CASES:
            start, saved = place / f"{name}.start", place / f"{name}.saved"
            start.mkdir()
            model = make(start) or ["--model", start]
            data, loss = ("pairs.csv", "CLIPLoss") if both else ("photos", "TripletMarginLoss")
            try:
                run("fit", *model, "--train-data", data, "--loss", loss, "--learning-rate", "1e-3", "--batch-size", 12,
                    "--epochs", 2, "--canary=false", "--output", saved)
                inputs = ([place / "texts.txt"] if both else []) + [place / "photos"]
                rows = []
                for number, source in enumerate(inputs):
                    run("encode", "--model", saved, "--input", source, "--output", place / f"{number}.npy")
                    rows.append(np.load(place / f"{number}.npy"))
            except subprocess.CalledProcessError as error:
                print(json.dumps({"model": name, "failed": error.stderr.decode()[-600:]}), flush=True)
                good = False
                continue
            ours = unit(np.concatenate(rows))
            for library, load in loaders:
                try:
                    difference = float(np.abs(ours - unit(load(saved, paths))).max())
                    record = {"difference": difference, "equal": difference < 1e-5}
                except Exception as error:
                    record = {"failed": f"{type(error).__name__}: {error}"[:600]}
                good &= record.get("equal", False)
                print(json.dumps({"model": name, "loaded_with": library, **record}), flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
