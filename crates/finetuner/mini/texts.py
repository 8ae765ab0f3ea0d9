"""Writes the texts that `mini` is distilled on, one a line: the definitions and example sentences of WordNet 3.0, single
words in a short frame, and the descriptions of examples/packages/train.csv.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet
    python3 texts.py wordnet/usr/share/wordnet ../../../examples/packages/train.csv > texts.txt
"""

import csv
import re
import sys


def wordnet(folder):
    for part in ("noun", "verb", "adj", "adv"):
        with open(f"{folder}/data.{part}", encoding="utf-8") as file:
            for line in file:
                if line.startswith("  ") or "|" not in line:
                    continue
                fields, gloss = line.split("|", 1)
                words = [word.replace("_", " ") for word in fields.split()[4::2][: int(fields.split()[3], 16)]]
                examples = re.findall(r'"([^"]+)"', gloss)
                definition = re.sub(r';?\s*"[^"]*"', "", gloss).strip(" ;\n")
                yield definition
                yield f"{words[0]}: {definition}"
                yield from examples
                # Questions and requests are how people search; WordNet has none.
                if part == "verb":
                    yield f"How do I {words[0]} {definition.split(' ', 1)[-1]}?"
                elif part == "noun":
                    yield f"What is the {words[0]} for?"


def packages(path):
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["anchor"]
            yield row["positive"]


def main():
    seen = set()
    for source in (wordnet(sys.argv[1]), packages(sys.argv[2])):
        for text in source:
            text = " ".join(text.split())
            if len(text) > 3 and text not in seen:
                seen.add(text)
                print(text)


if __name__ == "__main__":
    main()
