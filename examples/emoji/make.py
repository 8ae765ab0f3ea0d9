"""Makes this folder's data: emoji drawn from a font, with their names in English and German.

    apt-get install fonts-noto-color-emoji unicode-cldr-core && pip install pillow
    python examples/emoji/make.py

Every emoji that the font draws as one glyph and CLDR names in both languages, skin tones left out; 40 x 40 pixels on white.
A tenth of them, drawn by a hash of the code points, is held out: neither their pictures nor their names are trained on.
"""

import csv
import hashlib
import io
import re
import xml.etree.ElementTree as xml
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
CLDR = Path("/usr/share/unicode/cldr/common")
LANGUAGES = ("en", "de")
DRAWN, KEPT = 109, 40  # the font's bitmaps; ours
SKIN_TONES = range(0x1F3FB, 0x1F400)
REGIONAL = range(0x1F1E6, 0x1F200)


def names(language):
    """{emoji: its short name} of a language, the derived ones (flags, people with hair colours) among them."""
    found = {}
    for part in ("annotations", "annotationsDerived"):
        for entry in xml.parse(CLDR / part / f"{language}.xml").getroot().iter("annotation"):
            if entry.get("type") == "tts" and entry.text:
                found[entry.get("cp")] = entry.text.strip()
    return found


def draw(emoji, font):
    """The emoji on white, or None if the font has no single picture of it."""
    box = font.getbbox(emoji)
    if font.getlength(emoji) > 1.3 * DRAWN * 128 / 109 or box[2] - box[0] <= 0:
        return None
    canvas = Image.new("RGB", (136, 128), "white")
    ImageDraw.Draw(canvas).text((0, 0), emoji, font=font, embedded_color=True)
    pixels = canvas.getcolors(1 << 16)
    if pixels and len(pixels) < 3:
        return None  # nothing drawn, or the box of a missing glyph
    return canvas.resize((KEPT, KEPT), Image.Resampling.LANCZOS)


def main():
    font = ImageFont.truetype(FONT, DRAWN, layout_engine=ImageFont.Layout.RAQM if has_raqm() else None)
    by_language = {language: names(language) for language in LANGUAGES}
    pictures = FOLDER / "pictures"
    pictures.mkdir(exist_ok=True)
    for old in pictures.glob("*.png"):
        old.unlink()
    rows, seen = {"train": [], "test": []}, set()
    for emoji in sorted(set.intersection(*(set(found) for found in by_language.values()))):
        points = [ord(character) for character in emoji if character != "\ufe0f"]
        if any(point in SKIN_TONES for point in points) or all(point < 0x2190 for point in points):
            continue
        picture = draw(emoji, font)
        if picture is None:
            continue
        bytes_ = io.BytesIO()
        picture.quantize(48, method=Image.Quantize.FASTOCTREE).save(bytes_, "PNG", optimize=True)
        if bytes_.getvalue() in seen:
            continue
        seen.add(bytes_.getvalue())
        name = "-".join(f"{point:x}" for point in points)
        (pictures / f"{name}.png").write_bytes(bytes_.getvalue())
        part = "test" if hashlib.sha256(name.encode()).digest()[0] < 26 else "train"
        for language in LANGUAGES:
            text = re.sub(r"\s+", " ", by_language[language][emoji])
            rows[part].append((text, f"pictures/{name}.png", language))
    for part, found in rows.items():
        for language in (None, *LANGUAGES):
            if part == "train" and language:
                continue
            file = FOLDER / (f"{part}-{language}.csv" if language else f"{part}.csv")
            with open(file, "w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out, lineterminator="\n")
                writer.writerow(("text", "image"))
                writer.writerows((text, image) for text, image, own in found if language in (None, own))
    size = sum(file.stat().st_size for file in pictures.glob("*.png"))
    print({part: len(found) for part, found in rows.items()}, f"{size / 1e6:.2f} MB of pictures")


def has_raqm():
    from PIL import features

    return features.check("raqm")


if __name__ == "__main__":
    main()
