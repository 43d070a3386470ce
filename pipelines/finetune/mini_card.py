"""The model card of `mini`: the words of `mini_card.md` with the figures of a measurement put in.

`{name}` in the words is the place of a figure or a table; all of them come from a measurement, none is typed.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from pipelines.finetune.mini_measure import HELD_OUT, NTREX, SIB, TREEBANKS, UNER, measure, ntrex_label

_COLUMNS = 4
_WEAK, _CONFUSIONS = 0.7, 30
# What `Measures` holds, as JSON has it.
Figures = Mapping[str, Any]
ByLanguage = Mapping[str, Mapping[str, float]]
# Per head: its measure, what it counts, and its sets of sentences in words.
_HEADS = {
    "topic": ("accuracy", {HELD_OUT: "held-out sentences of SIB-200", SIB: "SIB-200 dev"}),
    "pos": ("accuracy", {HELD_OUT: "held-out sentences of the treebanks", TREEBANKS: "test splits of 25 treebanks"}),
    "entities": ("micro_f1", {HELD_OUT: "held-out sentences of the entity sets", UNER: "Universal NER dev"}),
}


def write_card(
    work: Path,
    model: Path,
    data: Path,
    figures: Path,
    *,
    baselines: Path | None = None,
    before: Path | None = None,
    transfer: Path | None = None,
) -> None:
    """Measures a model directory and writes README.md into it.

    Args:
        work: Working directory of the recipe.
        model: The model directory.
        data: Folder with texts that nothing was trained on.
        figures: JSON file that gets all figures.
        baselines: What `python -m benchmarks.baselines` wrote.
        before: Figures of another model, to compare with.
        transfer: `evaluation.json` of the model fine-tuned on English topics, of SIB-200's dev splits.
    """
    measure(str(model), work / "files", data).save(figures)
    words = (Path(__file__).parent / "mini_card.md").read_text(encoding="utf-8")
    card = render(words, _json(figures), _json(baselines), _json(before), _json(transfer), _runs(work))
    (model / "README.md").write_text(card, encoding="utf-8")


def _json(path: Path | None) -> Figures:
    found: Figures = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    return found


def _runs(work: Path) -> dict[str, str]:
    """What the configs of the two runs say."""
    found = {}
    for name in ("pretrain", "heads"):
        config = yaml.safe_load((work / f"{name}.yaml").read_text(encoding="utf-8"))
        found[f"{name}_steps"] = f"{config['training']['steps']:,}"
        found[f"{name}_rate"] = f"{config['training']['learning_rate']:g}"
        if "data" in config:
            found[f"{name}_tokens"] = f"{config['data']['batch_tokens']:,}"
    return found


def render(
    words: str, figures: Figures, baselines: Figures, before: Figures, transfer: Figures, runs: Mapping[str, str]
) -> str:
    """Puts the figures in the place of `{name}` in the words of the card."""
    held_out: ByLanguage = figures["language"][HELD_OUT]
    places: dict[str, str | Callable[[], str]] = {
        **runs,
        "labels": str(len(held_out)),
        "held_out_texts": f"{_total(held_out):,}",
        "language_sets": lambda: language_sets(figures, before),
        "tools": lambda: tools(figures, baselines),
        "short": lambda: short(figures, before),
        "weak": lambda: weak(held_out),
        "confusions": lambda: confusions(figures),
        "heads": lambda: heads(figures, baselines),
        "transfer": lambda: transferred(transfer, baselines),
        "to_english": lambda: _percent(mean(row["forward"] for row in figures["retrieval"].values())),
        "from_english": lambda: _percent(mean(row["backward"] for row in figures["retrieval"].values())),
        "ntrex_table": lambda: ntrex_table(figures),
        "head_tables": lambda: head_tables(figures, baselines),
        "language_table": lambda: language_table(held_out),
    }
    for name, text in places.items():
        if "{" + name + "}" in words:
            words = words.replace("{" + name + "}", text if isinstance(text, str) else text())
    return words


def language_sets(figures: Figures, before: Figures) -> str:
    """Right languages on each set of sentences."""
    names = {
        HELD_OUT: "held-out part of the training files (same sources as in training)",
        NTREX: "NTREX lines 1-461 (news, other documents than in training)",
        SIB: "SIB-200 dev (FLORES sentences not in training)",
    }
    lines = _head("sentences", "texts", "languages", "right", "mean over languages", *(["before"] if before else []))
    for name, what in names.items():
        found: ByLanguage = figures["language"][name]
        old = [_percent(_accuracy(before["language"][name]))] if before else []
        cells = [f"{_total(found):,}", str(len(found)), _percent(_accuracy(found)), _percent(_mean(found)), *old]
        lines.append(_row(what, *cells))
    return "\n".join(lines)


def tools(figures: Figures, baselines: Figures) -> str:
    """What others say of the same sentences, where they know the language."""
    if "language" not in baselines:
        return ""
    codes: Mapping[str, str] = baselines["language"]["codes"]
    lines = _head("sentences", "tool", "languages", "texts", "right", "mini on these")
    for tool, sets in baselines["language"]["tools"].items():
        for name, found in sets.items():
            ours = _own(figures["language_codes"][name], codes, set(found))
            total = sum(count for _, count in found.values())
            right = sum(count for count, _ in found.values())
            cells = [str(len({codes[label] for label in found})), f"{total:,}", _percent(right / total)]
            lines.append(_row(name, tool, *cells, _percent(ours / total)))
    return "\n".join(lines)


def _own(pairs: Iterable[Sequence[Any]], codes: Mapping[str, str], asked: set[str]) -> int:
    """How many of our answers name the right language, as coarsely as the tools do."""
    return sum(count for gold, said, count in pairs if gold in asked and codes.get(said) == codes[gold])


def short(figures: Figures, before: Figures) -> str:
    """Right languages of the first words of texts."""
    lines = _head("words", "right", *(["before"] if before else []))
    for words, share in figures["short"].items():
        lines.append(_row(str(words), _percent(share), *([_percent(before["short"][words])] if before else [])))
    return "\n".join(lines)


def heads(figures: Figures, baselines: Figures) -> str:
    """The mean over languages of each labelled head, beside its baselines."""
    lines = _head("head", "sentences", "languages", "measure", "mini", "most frequent label", "n-gram regression")
    for head, (measure_name, sets) in _HEADS.items():
        for name, what in sets.items():
            found: ByLanguage = figures[head].get(name, {})
            if not found:
                continue
            others = ["", ""]
            if name == HELD_OUT and head in baselines:
                others = [_percent(_mean(baselines[head][kind], measure_name)) for kind in ("majority", "n-grams")]
            counted = {"accuracy": "right", "micro_f1": "F1"}[measure_name]
            mine = _percent(_mean(found, measure_name))
            lines.append(_row(f"`{head}`", what, str(len(found)), counted, mine, *others))
    return "\n".join(lines)


def transferred(transfer: Figures, baselines: Figures) -> str:
    """Topics learnt in English alone, asked in other languages."""
    lines = _head("model", "English", "mean of the other languages", "languages")
    rows: dict[str, ByLanguage] = {}
    if transfer:
        rows["mini, fine-tuned"] = transfer["results"][0]["languages"]
    names = {"n-grams": "n-gram regression", "majority": "most frequent label"}
    rows |= {names[kind]: found for kind, found in reversed(baselines.get("transfer", {}).items())}
    for name, found in rows.items():
        others = [row["accuracy"] for language, row in found.items() if language != "eng_Latn"]
        lines.append(_row(name, _percent(found["eng_Latn"]["accuracy"]), _percent(mean(others)), str(len(others))))
    return "\n".join(lines)


def head_tables(figures: Figures, baselines: Figures) -> str:
    """Each language of each labelled head on the held-out sentences."""
    parts = []
    for head, (measure_name, _) in _HEADS.items():
        found: ByLanguage = figures[head].get(HELD_OUT, {})
        others = baselines.get(head, {}).get("n-grams", {})
        cells = [
            f"{language} | {_percent(row[measure_name])} | "
            + (_percent(others[language][measure_name]) if language in others else "")
            for language, row in found.items()
        ]
        parts.append(f"`{head}`:\n\n" + _wide(["label", "mini", "n-grams"], cells))
    return "\n\n".join(parts)


def ntrex_table(figures: Figures) -> str:
    """One line for each file of NTREX: language, and retrieval both ways."""
    lines = _head("file", "label", "language right", "to English", "from English")
    told: ByLanguage = figures["language"][NTREX]
    for name in sorted({"eng", *figures["retrieval"]}):
        row = figures["retrieval"].get(name)
        ways = [_percent(row["forward"]), _percent(row["backward"])] if row else ["-", "-"]
        lines.append(_row(name, ntrex_label(name), _percent(told[ntrex_label(name)]["accuracy"]), *ways))
    return "\n".join(lines)


def confusions(figures: Figures) -> str:
    """The most frequent errors on the held-out part, both directions of a pair together."""
    total: dict[str, int] = defaultdict(int)
    for gold, _, count in figures["language_codes"][HELD_OUT]:
        total[gold] += count
    pairs: dict[tuple[str, ...], list[str]] = defaultdict(list)
    wrong = [row for row in figures["language_codes"][HELD_OUT] if row[0] != row[1]][:_CONFUSIONS]
    for gold, said, count in wrong:
        pairs[tuple(sorted((gold, said)))].append(f"{gold} as {said or 'nothing'} {count} of {total[gold]}")
    return "\n".join(f"- {'; '.join(found)}" for found in pairs.values())


def weak(found: ByLanguage, *, below: float = _WEAK) -> str:
    """Languages that are wrong too often to rely on."""
    rows = sorted((row["accuracy"], label) for label, row in found.items() if row["accuracy"] < below)
    return ", ".join(f"{label} {_percent(share)}" for share, label in rows)


def language_table(found: ByLanguage) -> str:
    """Share of right answers of every label, several a line."""
    cells = [f"{label} | {_percent(row['accuracy'])} | {row['total']:.0f}" for label, row in found.items()]
    return _wide(["label", "right", "of"], cells)


def _wide(names: Sequence[str], cells: list[str]) -> str:
    """Short rows, `_COLUMNS` of them in a line."""
    cells = cells + [" | " * (len(names) - 1)] * (-len(cells) % _COLUMNS)
    lines = _head(*(list(names) * _COLUMNS))
    return "\n".join([*lines, *(_row(*cells[at : at + _COLUMNS]) for at in range(0, len(cells), _COLUMNS))])


def _head(*names: str) -> list[str]:
    return [_row(*names), "|" + "---|" * len(names)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _total(found: ByLanguage) -> int:
    return int(sum(row["total"] for row in found.values()))


def _accuracy(found: ByLanguage) -> float:
    return sum(row["accuracy"] * row["total"] for row in found.values()) / _total(found)


def _mean(found: ByLanguage, name: str = "accuracy") -> float:
    return mean(row[name] for row in found.values())


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
