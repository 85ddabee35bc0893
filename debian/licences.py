#!/usr/bin/python3
"""`licences.py DIRECTORY`: a paragraph of debian/copyright for each wheel and source archive in it, to stdout.

Licence, holders and text are those of the archive's own metadata and licence files, so a new version in the lock
brings its own. Texts that Debian has in /usr/share/common-licenses are named and not repeated.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

BUILD_ONLY = {"setuptools", "wheel", "packaging"}
SITE = "usr/lib/gatewayd/installed/lib/python3*/site-packages"
LICENCE_FILE = re.compile(r"(\.dist-info/.*|^[^/]+/)(LICEN[CS]E|COPYING|NOTICE)[^/]*$", re.IGNORECASE)
COMMON = (
    (re.compile(r"Apache License\s+Version 2\.0, January"), "Apache-2.0"),
    (re.compile(r"GNU GENERAL PUBLIC LICENSE\s+Version 2,"), "GPL-2"),
    (re.compile(r"GNU GENERAL PUBLIC LICENSE\s+Version 3,"), "GPL-3"),
    (re.compile(r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3,"), "LGPL-3"),
)
HOLDER = re.compile(r"^\W*(?:Copyright\b|©)\s*(?:\(c\)|©)?\s*(?P<who>.*)$", re.IGNORECASE)
PLACEHOLDER = re.compile(r"\[|<copyright|^(notice|license|holders|and license)\b|<year>|^$", re.IGNORECASE)


def texts_of(archive: Path) -> tuple[str, list[str], list[str]]:
    """The metadata, the licence files, and patterns of all its files."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
        metadata = next(files[name] for name in files if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        top = sorted({re.sub("/.*", "/*", name) for name in files})
    else:
        with tarfile.open(archive) as source:
            members = [each for each in source.getmembers() if each.isfile()]
            files = {each.name: opened.read() for each in members if (opened := source.extractfile(each))}
        metadata = next(files[name] for name in files if re.fullmatch(r"[^/]+/PKG-INFO", name))
        top = ["pytricia*"]
    licences = [files[name].decode("utf-8", "replace") for name in sorted(files) if LICENCE_FILE.search(name)]
    return metadata.decode("utf-8", "replace"), licences, top


def holders_of(texts: list[str]) -> Iterator[str]:
    for line in "\n".join(texts).splitlines():
        found = HOLDER.match(line)
        if found and not PLACEHOLDER.search(found["who"].strip()):
            yield found["who"].strip().rstrip(".")


def paragraph(archive: Path) -> str:
    metadata, texts, top = texts_of(archive)
    headers = HeaderParser().parsestr(metadata)
    classifiers = [each.rsplit(" :: ", 1)[1] for each in headers.get_all("Classifier", []) if "License ::" in each]
    licence = headers["License-Expression"] or " or ".join(classifiers) or headers["License"] or ""
    common = [name for text in texts for pattern, name in COMMON if pattern.search(text)]
    licence = licence or " ".join(common[-1:])
    own = [text for text in texts if not any(pattern.search(text) for pattern, _ in COMMON)]
    author = headers["Author"] or headers["Author-email"] or f"the {headers['Name']} authors"
    # Not of the licences themselves, which have holders of their own.
    holders = list(dict.fromkeys(holders_of(own))) or [author]
    label = re.sub(r"[^\w.]+", "-", f"{licence}-of-{headers['Name']}")
    lines = ["Files: " + "\n ".join(f"{SITE}/{name}" for name in top)]
    lines += ["Copyright: " + "\n ".join(holders), f"License: {label}"]
    lines += [f" {headers['Name']} {headers['Version']}: {licence}"]
    lines += [f" .\n The text is in /usr/share/common-licenses/{name}." for name in dict.fromkeys(common)]
    for text in own:
        lines += [" .", *(f" {line.rstrip()}" if line.strip() else " ." for line in text.strip().splitlines())]
    return "\n".join(lines)


if __name__ == "__main__":
    archives = sorted(Path(sys.argv[1]).iterdir(), key=lambda path: path.name.lower())
    for archive in archives:
        if archive.name.split("-")[0].lower() not in BUILD_ONLY:
            print(f"\n{paragraph(archive)}")
