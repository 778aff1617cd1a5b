"""The table of figures inside the model card: read, compared and written again between its two marks."""

from __future__ import annotations

import re
from pathlib import Path

START, END = "<!-- figures: written by tools/train_priors.py -->\n", "<!-- end of figures -->"
_HEAD = "| prior | figure on held-out clips | value |\n|---|---|---|\n"
# What other machines and versions may differ by: relative, and in the last digit written.
RELATIVE, ABSOLUTE = 0.02, 0.002


def read_figures(card: Path) -> dict[str, dict[str, float]]:
    """Return the figures of each prior in the card; none where there is no card."""
    figures: dict[str, dict[str, float]] = {}
    if card.is_file():
        rows = re.findall(r"^\| (\w+) \| (.+?) \| ([-+.\deinfa]+) \|$", _parts(card)[1], re.M)
        for prior, figure, value in rows:
            figures.setdefault(prior, {})[figure] = float(value)
    return figures


def write_figures(card: Path, prior: str, figures: dict[str, float]) -> None:
    """Put the figures of one prior in the card, in place of its old ones; without a card nothing is written."""
    if not card.is_file():
        return
    before, _, after = _parts(card)
    table = read_figures(card) | {prior: figures}
    rows = [f"| {name} | {figure} | {value:.4g} |\n" for name in sorted(table) for figure, value in table[name].items()]
    card.write_text(before + START + _HEAD + "".join(rows) + END + after)


def differences(present: dict[str, float], found: dict[str, float]) -> list[str]:
    """Say which figures differ by more than rounding and the machine."""
    texts = [f"{name}: only in one of the two" for name in sorted(set(present) ^ set(found))]
    for name in present.keys() & found.keys():
        if not abs(present[name] - found[name]) <= ABSOLUTE + RELATIVE * abs(present[name]):
            texts.append(f"{name}: {present[name]:.4g} in the card, {found[name]:.4g} now")
    return texts


def _parts(card: Path) -> tuple[str, str, str]:
    text = card.read_text()
    before, start, rest = text.partition(START)
    table, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{card}: expected the marks of the table of figures, got none; write {START!r} and {END!r}")
    return before, table, after
