"""Measures `mini` and writes its model card: `python -m pipelines.finetune.mini_card --model DIR ...`.

Every figure of the card comes from a measurement of this run; the words around them stand here.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from pipelines.finetune.evaluate import LabelReport
from pipelines.finetune.mini_measure import Measures, measure, ntrex_label
from xlmr_core.checkpoint import Checkpoint

COLUMNS = 4


def main() -> None:
    """Measures a model directory and writes README.md into it."""
    parser = argparse.ArgumentParser(description="Measures `mini` and writes its model card.")
    parser.add_argument("--model", type=Path, required=True, help="model directory; gets README.md")
    parser.add_argument("--train", type=Path, required=True, help="folder with the training files")
    parser.add_argument("--ntrex", type=Path, required=True, help="folder with NTREX files of other lines")
    parser.add_argument("--sib200", type=Path, required=True, help="folder with <language>/dev.tsv")
    parser.add_argument("--figures", type=Path, required=True, help="JSON file that gets all figures")
    parser.add_argument("--bag-steps", required=True, help="steps of the bag of tokens, for the card")
    parser.add_argument("--steps", required=True, help="steps of the encoder, for the card")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    labels = Checkpoint.open(f"{arguments.model}#language").config.id2label
    measures = measure(
        str(arguments.model), labels, train=arguments.train, ntrex=arguments.ntrex, sib200=arguments.sib200
    )
    measures.save(arguments.figures)
    words = (Path(__file__).parent / "mini_card.md").read_text(encoding="utf-8")
    words = words.replace("{bag_steps}", arguments.bag_steps).replace("{steps}", arguments.steps)
    (arguments.model / "README.md").write_text(render(words, measures), encoding="utf-8")


def render(words: str, measures: Measures) -> str:
    """Puts the figures in the place of `{name}` in the words of the card."""
    held_out = measures.held_out
    figures = {
        "labels": str(len(held_out.by_label)),
        "held_out_texts": f"{sum(held_out.counts.values()):,}",
        "held_out": _percent(held_out.accuracy),
        "held_out_macro": _percent(held_out.macro_accuracy),
        "ntrex": _percent(measures.ntrex.accuracy),
        "sib200": _percent(measures.sib200.accuracy),
        "short": "\n".join(f"| {words} | {_percent(share)} |" for words, share in measures.short.items()),
        "to_english": _percent(float(np.mean(list(measures.to_english.values())))),
        "from_english": _percent(float(np.mean(list(measures.from_english.values())))),
        "ntrex_table": ntrex_table(measures),
        "sib200_list": ", ".join(
            f"{label} {_percent(share)}" for label, share in sorted(measures.sib200.by_label.items())
        ),
        "confusions": confusions(held_out),
        "weak": weak(held_out),
        "language_table": language_table(held_out),
    }
    for name, text in figures.items():
        words = words.replace("{" + name + "}", text)
    return words


def ntrex_table(measures: Measures) -> str:
    """One line for each file of NTREX: language, and retrieval both ways."""
    lines = ["| file | label | language right | to English | from English |", "|---|---|---|---|---|"]
    for name in sorted({"eng", *measures.to_english}):
        label = ntrex_label(name)
        there, back = measures.to_english.get(name), measures.from_english.get(name)
        ways = f"{_percent(there)} | {_percent(back)}" if there is not None and back is not None else "- | -"
        lines.append(f"| {name} | {label} | {_percent(measures.ntrex.by_label[label])} | {ways} |")
    return "\n".join(lines)


def confusions(report: LabelReport) -> str:
    """The most frequent errors, both directions of a pair together."""
    pairs: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for gold, predicted, count in report.confusions:
        pairs[tuple(sorted((gold, predicted)))].append(f"{gold} as {predicted} {count} of {report.counts[gold]}")
    return "\n".join(f"- {'; '.join(found)}" for found in pairs.values())


def weak(report: LabelReport, *, below: float = 0.7) -> str:
    """Languages that are wrong too often to rely on."""
    found = sorted((share, label) for label, share in report.by_label.items() if share < below)
    return ", ".join(f"{label} {_percent(share)}" for share, label in found)


def language_table(report: LabelReport) -> str:
    """Recall of every label, several a line."""
    cells = [f"{label} | {_percent(share)} | {report.counts[label]}" for label, share in report.by_label.items()]
    cells += ["| |"] * (-len(cells) % COLUMNS)
    lines = ["| label | right | of " * COLUMNS + "|", "|---|---|---" * COLUMNS + "|"]
    lines += ["| " + " | ".join(cells[start : start + COLUMNS]) + " |" for start in range(0, len(cells), COLUMNS)]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
