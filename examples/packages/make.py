#!/usr/bin/env python3
"""Makes train.csv, test.csv and index.csv from a list of Debian packages. Needs the Python standard library only.

    python3 make.py packages.csv

`packages.csv` has the columns package, section, synopsis, description (README.md says where they come from).
The order of packages is that of a hash of the package name: the same input gives the same files everywhere.
"""

import csv
import hashlib
import pathlib
import sys
from collections import Counter

SEED = "finetuner-packages-1"
TEST, OTHERS, TRAIN = 800, 3000, 3200
LONGEST = 400  # characters of a description
SHORTEST = 80
HERE = pathlib.Path(__file__).resolve().parent


def squeeze(text):
    return " ".join(text.split())


def cut(text):
    """At most LONGEST characters, ending with a whole word."""
    if len(text) <= LONGEST:
        return text
    return text[: LONGEST + 1].rsplit(" ", 1)[0][:LONGEST].rstrip()


def usable(rows):
    """(package, synopsis, description), without short texts and without texts that several packages share."""
    rows = [(row["package"], squeeze(row["synopsis"]), cut(squeeze(row["description"]))) for row in rows]
    synopses = Counter(synopsis.casefold() for _, synopsis, _ in rows)
    descriptions = Counter(description.casefold() for _, _, description in rows)
    return [
        (package, synopsis, description)
        for package, synopsis, description in rows
        if len(synopsis.split()) >= 3
        and len(description) >= SHORTEST
        and synopses[synopsis.casefold()] == 1
        and descriptions[description.casefold()] == 1
    ]


def write(name, header, rows):
    with open(HERE / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    print(f"{name}: {len(rows)} rows, {(HERE / name).stat().st_size / 1e6:.2f} MB")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8", newline="") as file:
        packages = usable(csv.DictReader(file))
    if len(packages) < TEST + OTHERS + TRAIN:
        sys.exit(f"expected at least {TEST + OTHERS + TRAIN} usable packages, got {len(packages)}")
    packages.sort(key=lambda row: hashlib.sha256(f"{SEED} {row[0]}".encode()).digest())
    test, others = packages[:TEST], packages[TEST : TEST + OTHERS]
    train = packages[TEST + OTHERS : TEST + OTHERS + TRAIN]
    write("train.csv", ("id", "anchor", "positive"), train)
    write("test.csv", ("id", "anchor", "positive"), test)
    # By name, so that a document's place says nothing about whether a test query asks for it.
    index = sorted((package, description) for package, _, description in test + others)
    write("index.csv", ("id", "text"), index)


if __name__ == "__main__":
    main()
