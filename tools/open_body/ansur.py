"""The calibration target: ANSUR II, pooled so that men and women count half each.

`ansur2_pooled.tsv` holds the numbers (US Government work); `pooled_statistics` makes them from the two public CSVs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .measure import ANSUR_COLUMNS, FURTHER_COLUMNS

TABLE = Path(__file__).with_name("ansur2_pooled.tsv")
COLUMNS = {**ANSUR_COLUMNS, **FURTHER_COLUMNS}
SEX = "sex"
"""Name of the first variable: +1 man, −1 woman."""


@dataclass(frozen=True)
class Population:
    """Mean (M,) and covariance (M, M) of `names`; metres and kilograms."""

    names: tuple[str, ...]
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def sd(self) -> np.ndarray:
        """Standard deviations (M,)."""
        return np.sqrt(np.diag(self.covariance))


def pooled_statistics(folder: str | Path) -> Population:
    """Compute the pooled statistics from ANSUR_II_MALE_Public.csv and ANSUR_II_FEMALE_Public.csv in `folder`."""
    means, moments = [], []
    for name, sex in (("MALE", 1.0), ("FEMALE", -1.0)):
        with open(Path(folder) / f"ANSUR_II_{name}_Public.csv", encoding="latin-1", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = [np.full(len(rows), sex)]
        for measure, (plus, *minus) in COLUMNS.items():
            value = np.array([float(row[plus]) for row in rows])
            for column in minus:
                value = value - [float(row[column]) for row in rows]
            columns.append(value * (0.1 if measure == "weight" else 0.001))
        values = np.stack(columns, axis=1)
        means.append(values.mean(axis=0))
        moments.append(values.T @ values / len(values))
    mean = np.mean(means, axis=0)
    return Population((SEX, *COLUMNS), mean, np.mean(moments, axis=0) - np.outer(mean, mean))


def stored_statistics() -> Population:
    """Read the stored table."""
    lines = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    names = tuple(line[0] for line in lines[1:])
    numbers = np.array([[float(cell) for cell in line[1:]] for line in lines[1:]])
    mean, sd, correlation = numbers[:, 0], numbers[:, 1], numbers[:, 2:]
    return Population(names, mean, correlation * np.outer(sd, sd))


def write_table(population: Population) -> None:
    """Write the stored table anew."""
    correlation = population.covariance / np.outer(population.sd, population.sd)
    lines = [
        "# ANSUR II (2012, US Army, public data), 4,082 men and 1,986 women, each sex weighted one half.",
        "# Metres and kilograms; sex is +1 for men and -1 for women. Columns: mean, standard deviation, correlations.",
        "\t".join(["measure", "mean", "sd", *population.names]),
    ]
    for k, name in enumerate(population.names):
        numbers = [population.mean[k], population.sd[k], *correlation[k]]
        lines.append("\t".join([name, *(f"{number:.6f}" for number in numbers)]))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
