"""What Pillow, transformers, timm and torchvision make of small pictures: the numbers in pixels/golden.safetensors.

Run in an environment with torch, torchvision, transformers, timm, safetensors, Pillow:
    python pixels.py
With a folder of photos as argument, it also writes pixels/photos.json: what Pillow decodes and resizes them to, at some places.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.numpy import save_file

OUT = Path(__file__).parent / "pixels"
OUT.mkdir(exist_ok=True)


def picture(width, height, seed):
    """Slopes, edges, saturated spots and noise: everything that filters treat differently."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        128 + 120 * np.sin(x / 3.0 + c) * np.cos(y / (4.0 + c)) + random.normal(0, 12, (height, width)) for c in range(3)
    ]
    pixels = np.stack(planes, -1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 0)
    pixels[: height // 5, -width // 5 :] = (0, 0, 255)
    pixels[-height // 6 :, : width // 3] = (255, 255, 255)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def smooth(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2)], -1).astype(np.uint8)


def rows_first(image, size, resample=None, box=None, reducing_gap=None):
    """The order of every Pillow before 13, which takes columns first where the height shrinks much more."""
    if box is None and resample not in (None, 0):
        image = resize(image, (size[0], image.height), resample)
    return resize(image, size, resample, box, reducing_gap)


resize = Image.Image.resize
Image.Image.resize = rows_first

golden = {}
wide, tall = picture(61, 47, 1), picture(47, 61, 2)
golden["wide"], golden["tall"] = wide, tall

# Pillow's resize. Numbers of filters: nearest 0, lanczos 1, bilinear 2, bicubic 3, box 4, hamming 5.
for number in range(6):
    for width, height in [(20, 15), (61, 20), (33, 47), (80, 70), (17, 90)]:
        golden[f"resize.{number}.{width}x{height}"] = np.asarray(Image.fromarray(wide).resize((width, height), number))

# transformers' processors (their PIL backend; the slow ones of earlier versions).
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

edge = lambda n: {"shortest_edge": n}
square = lambda n: {"height": n, "width": n}
processors = {
    "clip": CLIPImageProcessorPil(size=edge(32), crop_size=square(32)),
    "clip_crop": CLIPImageProcessorPil(size=edge(39), crop_size={"height": 24, "width": 31}),
    "clip_small": CLIPImageProcessorPil(do_resize=False, crop_size=square(54)),
    "vit": ViTImageProcessorPil(size=square(32)),
    "dinov2": BitImageProcessorPil(size=edge(37), crop_size=square(32), image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
    "siglip": SiglipImageProcessorPil(size=square(32)),
    "convnext": ConvNextImageProcessorPil(size=edge(28), crop_pct=0.875),
    "deit": DeiTImageProcessorPil(size=square(36), crop_size=square(32)),
    "no_rescale": ViTImageProcessorPil(size=square(20), do_rescale=False, do_normalize=False),
}
configs = {}
for name, processor in processors.items():
    config = json.loads(processor.to_json_string())
    configs[name] = config
    for shape, pixels in [("wide", wide), ("tall", tall)]:
        values = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
        golden[f"processor.{name}.{shape}"] = np.ascontiguousarray(values.transpose(1, 2, 0)).astype(np.float32)

# timm's evaluation transform.
from timm.data import create_transform, resolve_data_config

for name, config in {
    "center": {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "default": {"input_size": [3, 28, 28]},
    "squash": {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"},
    "lanczos": {"input_size": [3, 27, 27], "interpolation": "lanczos", "crop_pct": 0.95},
}.items():
    transform = create_transform(**resolve_data_config(pretrained_cfg=config), is_training=False)
    configs[f"timm.{name}"] = config
    for shape, pixels in [("wide", wide), ("tall", tall)]:
        golden[f"timm.{name}.{shape}"] = np.ascontiguousarray(transform(Image.fromarray(pixels)).numpy().transpose(1, 2, 0))
(OUT / "configs.json").write_text(json.dumps(configs, indent=1) + "\n")

# torchvision's changes of colour, on 8-bit tensors.
from torchvision.transforms.v2 import functional as F

small = picture(24, 20, 3)
golden["small"] = small
tensor = torch.from_numpy(small.copy()).permute(2, 0, 1)
steps = {
    "brightness.1.7": lambda t: F.adjust_brightness(t, 1.7),
    "brightness.0.3": lambda t: F.adjust_brightness(t, 0.3),
    "contrast.1.6": lambda t: F.adjust_contrast(t, 1.6),
    "contrast.0.4": lambda t: F.adjust_contrast(t, 0.4),
    "saturation.1.8": lambda t: F.adjust_saturation(t, 1.8),
    "saturation.0.2": lambda t: F.adjust_saturation(t, 0.2),
    "hue.0.2": lambda t: F.adjust_hue(t, 0.2),
    "hue.-0.35": lambda t: F.adjust_hue(t, -0.35),
    "blur.5.1.3": lambda t: F.gaussian_blur(t, [5, 5], [1.3, 1.3]),
    "blur.3.0.4": lambda t: F.gaussian_blur(t, [3, 3], [0.4, 0.4]),
    "grey": lambda t: F.rgb_to_grayscale(t, num_output_channels=3),
    "mirror": lambda t: F.horizontal_flip(t),
}
for name, step in steps.items():
    golden[f"colour.{name}"] = step(tensor).permute(1, 2, 0).contiguous().numpy()

# Files of every kind, and what Pillow reads in them: turned by EXIF, transparent parts on white.
plain = Image.fromarray(smooth(24, 16))
alpha = Image.fromarray(np.dstack([smooth(24, 16), np.tile(np.linspace(0, 255, 24).astype(np.uint8), (16, 1))]), "RGBA")
deep = (smooth(24, 16).astype(np.uint32) * 257).astype(np.uint16)
exif = Image.Exif()
exif[0x0112] = 6
second = Image.fromarray(255 - smooth(24, 16))
plain.save(OUT / "colour.jpg", quality=92)
plain.save(OUT / "progressive.jpg", quality=92, progressive=True)
plain.convert("L").save(OUT / "grey.jpg", quality=92)
plain.convert("CMYK").save(OUT / "cmyk.jpg", quality=92)
plain.save(OUT / "turned.jpg", quality=92, exif=exif)
plain.save(OUT / "colour.png")
plain.save(OUT / "turned.png", exif=exif)
alpha.save(OUT / "alpha.png")
alpha.convert("LA").save(OUT / "grey_alpha.png")
plain.quantize(16).save(OUT / "palette.png", transparency=3)
Image.fromarray(deep[:, :, 0]).save(OUT / "grey16.png")
plain.convert("1").save(OUT / "bits.png")
plain.save(OUT / "colour.webp", quality=92)
alpha.save(OUT / "alpha.webp", lossless=True)
plain.save(OUT / "colour.bmp")
plain.quantize(64).save(OUT / "colour.gif")
plain.quantize(64).save(OUT / "animated.gif", save_all=True, append_images=[second.quantize(64)], loop=0, duration=100)
plain.save(OUT / "animated.webp", save_all=True, append_images=[second], lossless=True, duration=100)
plain.save(OUT / "animated.png", save_all=True, append_images=[second], duration=100)
for file in sorted(OUT.iterdir()):
    if file.suffix not in (".jpg", ".png", ".webp", ".bmp", ".gif"):
        continue
    image = ImageOps.exif_transpose(Image.open(file))
    if file.name == "grey16.png":
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    golden[f"file.{file.name}"] = np.asarray(image.convert("RGB"))

save_file({name: np.ascontiguousarray(values) for name, values in golden.items()}, OUT / "golden.safetensors")

# Real photos: bicubic, the shorter edge to 64 pixels, at some places.
if len(sys.argv) > 1:
    root, random = Path(sys.argv[1]), np.random.default_rng(5)
    photos = {}
    for pattern in ["weights/sample-images/*.jpg", "image-text/coco-mini/train2017/*.jpg", "images/grocery/images/train_*_001.jpg"]:
        for file in sorted(root.glob(pattern))[:8]:
            image = Image.open(file).convert("RGB")
            scale = 64 / min(image.size)
            small = image.resize((math.floor(image.width * scale), math.floor(image.height * scale)), Image.BICUBIC)
            places = [(int(random.integers(small.width)), int(random.integers(small.height))) for _ in range(40)]
            points = [[x, y, *small.getpixel((x, y))] for x, y in places]
            photos[str(file.relative_to(root))] = {"size": small.size, "points": points}
    (OUT / "photos.json").write_text(json.dumps(photos) + "\n")
