"""Golden values of fill-mask and zero-shot classification, computed by transformers 4.56.2."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from texts import TEXTS

# Neighbouring scores must differ by this part of the higher one.
RELATIVE_MARGIN = 1e-3
SIGNIFICANT = 7

MASKED = (
    "The library by the <mask> opened in 1923.",
    "Oben verkauft Jörg <mask>, Brot und Schokolade.",
    "Старый колокол хранится в <mask> башне.",
    "كان يوسف يطبع <mask> ليلا.",
    "石匠老李正在修理村口的<mask>。",
    "คุณยายมาลีทำ<mask>ที่ตลาดน้ำ",
    "गाँव का <mask> सुबह सात बजे खुलता है।",
    "<mask>",
    "🐙 won the <mask> 🎉",
    "Every <mask> she read old <mask> to the children.",
    "<mask> <mask> <mask>",
    "ყურძენი ბებია <mask> მოჰყავს მთის <mask>.",
)
FILL_SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 1},
    {"top_k": 12},
    {"targets": ["▁river", "▁mill", "▁the", "▁in"]},
    {"targets": ["▁river", "▁in", "▁a", "▁in"], "top_k": 2},
    # Not in the vocabulary as it stands: its first token counts.
    {"targets": "unbelievable"},
)
LABELS = (["library", "trains", "cooking"], "music, nature ,travel,", ["海", "山"], ["only one"])
TEMPLATES = ("This example is {}.", "Hier geht es um {}!", "{}")


def fill_mask_cases(pipes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """(checkpoint, text or texts, parameters, returns); masks of one text are filled each on its own."""
    records: list[dict[str, Any]] = []
    for name, pipe in pipes.items():
        inputs: list[str | list[str]] = [*MASKED, list(MASKED[:3]), [MASKED[0]]]
        for text, settings in itertools.product(inputs, FILL_SETTINGS):
            found = pipe(text, **settings)
            if all(_clear([item["score"] for item in row]) for row in _rows(found)):
                records.append(
                    {"checkpoint": name, "text": text, "parameters": settings, "returns": significant(found)}
                )
    return records


def zero_shot_cases(pipes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """(checkpoint, text or texts, parameters, returns): both ways of scoring, several templates, long texts cut."""
    records: list[dict[str, Any]] = []
    texts = [" ".join(sentences) for _, _, sentences in TEXTS]
    settings = [
        {"candidate_labels": labels, "hypothesis_template": template, "multi_label": multi}
        for labels, template, multi in itertools.product(LABELS, TEMPLATES, (False, True))
    ]
    for index, (name, parameters) in enumerate(itertools.product(pipes, settings)):
        text: str | list[str] = texts[index % len(texts)] if index % 5 else [texts[index % len(texts)][:40], texts[0]]
        found = pipes[name](text, **parameters)
        results = found if isinstance(found, list) else [found]
        if all(_clear(result["scores"]) for result in results):
            records.append({"checkpoint": name, "text": text, "parameters": parameters, "returns": significant(found)})
    return records


def significant(value: Any) -> Any:
    """The same structure with floats of SIGNIFICANT digits."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT}g}")
    if isinstance(value, list):
        return [significant(item) for item in value]
    if isinstance(value, dict):
        return {key: significant(item) for key, item in value.items()}
    return value


def _rows(found: Any) -> list[Any]:
    """Every list of propositions in a result, however deep."""
    return [found] if isinstance(found[0], dict) else [row for item in found for row in _rows(item)]


def _clear(scores: Sequence[float]) -> bool:
    return all(high - low > RELATIVE_MARGIN * high for high, low in itertools.pairwise(scores))
