"""The language that a file's name tells: `de.jsonl`, `xquad.de.json`, `da_ddt-ud-train.iob2`, `tur_Latn/dev.tsv`."""

import os
import re

_WITH_SCRIPT = re.compile(r"[a-z]{2,3}[-_][A-Z][a-z]{3}")
_TREEBANK = re.compile(r"([a-z]{2,3})_[A-Za-z0-9]+-ud(-[A-Za-z0-9]+)*")
_CODE = re.compile(r"[a-z]{2,3}([-_]([A-Z]{2}|[A-Z][a-z]{3}))?")
_FOLDER = re.compile(r"[a-z]{2}(-[A-Z]{2})?")
# Parts of file names that look like a code and are none.
_WORDS = frozenset(
    [
        "all",
        "aug",
        "bio",
        "csv",
        "dev",
        "gz",
        "id",
        "ids",
        "json",
        "mc",
        "mlm",
        "nc",
        "ner",
        "new",
        "nli",
        "old",
        "out",
        "part",
        "pos",
        "qa",
        "raw",
        "rte",
        "seq",
        "set",
        "src",
        "sts",
        "sub",
        "tag",
        "tgt",
        "tmp",
        "trg",
        "tst",
        "tsv",
        "txt",
        "ud",
        "val",
        "zst",
    ]
)


def language_of(path: str) -> str:
    """The code in a file's name, as it stands there, or in that of its folder; "" where there is none or several.

    A folder counts only with two letters ("de") or a script ("deu_Latn").
    """
    folder, name = os.path.split(path)
    folder = os.path.basename(folder)
    treebank = _TREEBANK.match(name)
    if treebank:
        return treebank[1]
    # "id" is a word before a suffix of its own ("x.id.txt") and a language in front ("id.jsonl", "id.val.jsonl").
    parts = name.split(".")[:-1] or [name]
    codes = [
        part
        for place, part in enumerate(parts)
        if _CODE.fullmatch(part) and (part not in _WORDS or (part == "id" and place == 0))
    ]
    with_script = [part for part in codes if _WITH_SCRIPT.fullmatch(part)]
    if len(set(with_script or codes)) == 1:
        return (with_script or codes)[0]
    if codes:
        return ""
    if _WITH_SCRIPT.fullmatch(folder) or (_FOLDER.fullmatch(folder) and folder not in _WORDS):
        return folder
    return ""
