"""Two synthetic private tables, one of a clinic and one of a plant, each with its data contract.

Everything a person or a firm would not want outside is in them: unique ids, names and e-mail addresses, a place with
four rows only, free text, twelve measured columns of various printed precision, whole numbers, a skewed amount. The
development of the gate looks at the clinic; the plant, under another seed, is held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

SYLLABLES = [
    "bra",
    "ko",
    "len",
    "mar",
    "ti",
    "os",
    "vel",
    "nu",
    "shi",
    "dan",
    "fer",
    "go",
    "lia",
    "pet",
    "ral",
    "sun",
    "wex",
    "yor",
    "ham",
    "qui",
]
ENDINGS = ["berg", "field", "ton", "sen", "wick", "mann", "ley", "dale", "ova", "ski"]
FORENAMES = [
    "Anna",
    "Bo",
    "Clara",
    "Dmitri",
    "Elif",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kemal",
    "Lena",
    "Milo",
    "Nadia",
    "Oscar",
    "Petra",
    "Quentin",
    "Rosa",
]
HOSTS = ("mail.test", "post.example", "inbox.test")
RARE_ROWS = 4


class Number(NamedTuple):
    """A measured column: its centre and spread, decimals as printed (None: all of them), plausible range, and skew."""

    name: str
    centre: float
    spread: float
    decimals: int | None
    low: float
    high: float
    weight: float = 0.0  # how much of it follows the latent severity
    skewed: bool = False
    missing: float = 0.0


class Form(NamedTuple):
    """What tells one table from the other."""

    title: str
    task: str
    key: str
    person: str
    mail: str
    place: str
    places: tuple[str, ...]
    rare: str
    note: str
    phrases: tuple[str, ...]
    public: dict[str, tuple[str, ...]]
    label: str
    classes: tuple[str, str]
    amount: Number
    numbers: tuple[Number, ...]
    prefix: str


CLINIC = Form(
    title="clinic",
    task="classification",
    key="record_id",
    person="full_name",
    mail="email",
    place="town",
    places=("Leeds", "Bradford", "Halifax", "Harrogate", "Wakefield", "Huddersfield", "Keighley", "Skipton"),
    rare="Ripon",
    note="note",
    phrases=(
        "reports chest pain after walking uphill",
        "complains of a persistent dry cough",
        "feels better since the last change of dose",
        "sleeps badly and wakes before dawn",
        "has stopped taking the morning tablets",
        "asks for a second opinion on the operation",
        "was seen together with a daughter",
        "lives alone on the third floor without lift",
        "denies any fever or weight loss",
        "prefers to be called in the evening",
        "returned from abroad two weeks ago",
        "keeps a diary of the blood pressure",
    ),
    public={"sex": ("female", "male"), "smoker": ("current", "former", "never")},
    label="readmitted",
    classes=("no", "yes"),
    amount=Number("stay_days", 6, 4, 2, 0, 400, 0.5, True),
    numbers=(
        Number("age", 58, 16, 0, 0, 120, 0.4),
        Number("systolic", 132, 18, 0, 40, 300, 0.4),
        Number("visits", 6, 4, 0, 0, 500, 0.3),
        Number("bmi", 26.5, 4.5, 1, 5, 120, 0.2),
        Number("weight", 77, 14, 1, 1, 400, 0.1),
        Number("glucose", 5.9, 1.6, 2, 0, 100, 0.5, True),
        Number("creatinine", 0.98, 0.3, 3, 0, 50, 0.5, True),
        Number("crp", 6.0, 6.0, 2, 0, 1000, 0.6, True, 0.03),
        Number("potassium", 4.2, 0.45, 2, 0, 20, 0.1),
        Number("haemoglobin", 13.6, 1.5, 1, 0, 40, -0.3),
        Number("albumin", 41.2, 4.1, 3, 0, 100, -0.4),
        Number("filtration", 82.0, 19.0, None, 0, 400, -0.5),
        Number("qt_interval", 412.0, 27.0, None, 100, 1000, 0.2),
        Number("ferritin", 120.0, 90.0, 4, 0, 10000, 0.1, True),
        Number("income", 31000.0, 21000.0, 2, 0, 50000000, -0.1, True),
    ),
    prefix="R",
)

PLANT = Form(
    title="plant",
    task="regression",
    key="serial",
    person="operator",
    mail="contact",
    place="site",
    places=("Gdansk", "Rotterdam", "Bilbao", "Tampere", "Brno", "Malmo"),
    rare="Narvik",
    note="remark",
    phrases=(
        "bearing runs hot after the weekend stop",
        "spindle was exchanged under warranty",
        "operator hears a grinding noise at low speed",
        "lubricant smells burnt and looks dark",
        "vibration sensor was mounted upside down",
        "machine waits for a spare coupling",
        "customer wants the audit before summer",
        "seal leaks a little when cold",
        "was moved from the old hall last spring",
        "belt tension corrected twice this month",
        "controller firmware is two versions behind",
    ),
    public={"shift": ("day", "late", "night"), "material": ("aluminium", "brass", "steel", "titanium")},
    label="failed",
    classes=("no", "yes"),
    amount=Number("wear", 140, 55, 3, 0, 5000, 0.6, True),
    numbers=(
        Number("cycles", 48000, 17000, 0, 0, 10000000, 0.4),
        Number("speed", 1480, 160, 0, 0, 20000, 0.1),
        Number("batch_size", 240, 80, 0, 0, 100000, 0.0),
        Number("torque", 41.0, 9.5, 2, 0, 1000, 0.4),
        Number("vibration", 2.4, 1.1, 4, 0, 200, 0.6, True),
        Number("oil_temperature", 71.0, 8.0, 1, -50, 400, 0.5),
        Number("pressure", 6.2, 0.9, 2, 0, 100, -0.2),
        Number("current", 18.5, 4.1, 3, 0, 1000, 0.3),
        Number("voltage", 398.0, 4.0, 1, 0, 1000, 0.0),
        Number("humidity", 44.0, 11.0, 1, 0, 100, 0.1),
        Number("noise", 79.0, 5.5, 1, 0, 200, 0.4),
        Number("flow", 12.1, 2.7, 3, 0, 500, -0.2, False, 0.03),
        Number("load", 0.63, 0.14, None, 0, 10, 0.3),
        Number("acoustic_energy", 9.1, 3.3, None, 0, 1000, 0.5, True),
        Number("repair_cost", 5200.0, 4900.0, 2, 0, 10000000, 0.4, True),
    ),
    prefix="SN",
)

FORMS = {form.title: form for form in (CLINIC, PLANT)}


@dataclass(frozen=True, eq=False)
class Table:
    """A private table in memory with its contract; `write` puts both on disk."""

    form: Form
    seed: int
    frame: pl.DataFrame
    contract: str

    @property
    def rows(self) -> int:
        return self.frame.height

    @property
    def names(self) -> list[str]:
        """The numeric features, in the order of `matrix`."""
        return sorted(number.name for number in self.form.numbers)

    def matrix(self) -> np.ndarray:
        """(N, 15) float32, a missing number as its column's mean."""
        filled = [pl.col(name).cast(pl.Float64).fill_null(strategy="mean") for name in self.names]
        return self.frame.select(filled).to_numpy().astype("float32")

    def labels(self) -> np.ndarray:
        return self.frame[self.form.label].to_numpy().astype(str)

    def amounts(self) -> np.ndarray:
        return self.frame[self.form.amount.name].to_numpy()

    def texts(self, column: str) -> list[str]:
        return self.frame[column].to_list()

    def cells(self, row: int, decimals: int | None = None) -> list[str]:
        """The numbers of one row as they are printed, or rounded to fewer decimals."""
        shown = []
        for name in self.names:
            value, own = self.frame[name][row], self.decimals(name)
            places = own if decimals is None else decimals if own is None else min(decimals, own)
            shown.append("" if value is None else repr(float(value)) if places is None else f"{value:.{places}f}")
        return shown

    def decimals(self, name: str) -> int | None:
        return next(number.decimals for number in self.form.numbers if number.name == name)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The folder of Parquet parts and the contract's file, for the gate."""
        data, contract = folder / "table", folder / f"{self.form.title}.yml"
        data.mkdir(parents=True)
        half = self.rows // 2  # two parts, as ingest_blobs makes them
        for part, rows in enumerate((self.frame[:half], self.frame[half:])):
            rows.write_parquet(data / f"part-{part}.parquet")
        contract.write_text(self.contract)
        return data, contract


@cache
def make(title: str, seed: int, rows: int) -> Table:
    """The table of this name, always the same for a seed and a number of rows."""
    form = FORMS[title]
    rng = np.random.default_rng([seed, rows, *title.encode()])
    latent = rng.normal(size=rows)
    columns: dict[str, Any] = {form.key: _keys(form, rng, rows)}
    columns |= _people(form, rng, rows)
    places = rng.choice(np.array(form.places, dtype=object), rows)
    places[rng.choice(rows, RARE_ROWS, replace=False)] = form.rare
    columns[form.place] = places.tolist()
    columns[form.note] = _notes(form, rng, rows)
    for name, values in form.public.items():
        columns[name] = rng.choice(np.array(values, dtype=object), rows).tolist()
    for number in form.numbers:
        columns[number.name] = _numbers(number, latent, rng)
    chance = 1 / (1 + np.exp(-1.6 * latent - rng.normal(scale=0.7, size=rows) + 0.4))
    columns[form.label] = np.where(chance > 0.5, *reversed(form.classes)).tolist()
    columns[form.amount.name] = _numbers(form.amount, latent, rng)
    return Table(form, seed, pl.DataFrame(columns, strict=False), _contract(form))


def _keys(form: Form, rng: np.random.Generator, rows: int) -> list[str]:
    return [f"{form.prefix}{number:08d}" for number in rng.choice(89_999_999, rows, replace=False) + 10_000_000]


def _people(form: Form, rng: np.random.Generator, rows: int) -> dict[str, list[str]]:
    """Names that hardly repeat, and an e-mail address for each."""
    words = rng.integers(0, len(SYLLABLES), (rows, 3))
    forenames, endings = rng.integers(0, len(FORENAMES), rows), rng.integers(0, len(ENDINGS), rows)
    people, mails = [], []
    for row, (parts, first, last) in enumerate(zip(words.tolist(), forenames.tolist(), endings.tolist(), strict=True)):
        surname = "".join(SYLLABLES[part] for part in parts) + ENDINGS[last]
        people.append(f"{FORENAMES[first]} {surname.capitalize()}")
        mails.append(f"{FORENAMES[first].lower()}.{surname}{row % 97}@{HOSTS[row % 3]}")
    return {form.person: people, form.mail: mails}


def _notes(form: Form, rng: np.random.Generator, rows: int) -> list[str]:
    """Frequent phrases and words in an order and with numbers that belong to one row."""
    picked = rng.integers(0, len(form.phrases), (rows, 3))
    days, codes = rng.integers(2, 90, rows), rng.integers(1000, 9999, rows)
    words = rng.integers(0, len(SYLLABLES), (rows, 4))
    notes = []
    for parts, day, code, names in zip(picked.tolist(), days.tolist(), codes.tolist(), words.tolist(), strict=True):
        first, second, third = (form.phrases[part] for part in parts)
        other = "".join(SYLLABLES[name] for name in names).capitalize()
        notes.append(f"{first} for {day} days, {second}; {third}. Letter {code} sent to {other}.")
    return notes


def _numbers(number: Number, latent: np.ndarray, rng: np.random.Generator) -> list[float | int | None]:
    part = number.weight
    mixed = part * latent + np.sqrt(1 - part * part) * rng.normal(size=len(latent))
    if number.skewed:  # log-normal of about this mean and spread
        wide = np.sqrt(np.log1p((number.spread / number.centre) ** 2))
        values = number.centre * np.exp(wide * mixed - wide * wide / 2)
    else:
        values = number.centre + number.spread * mixed
    values = np.clip(values, number.low, number.high)
    if number.decimals is not None:
        values = np.round(values, number.decimals)
    listed = values.astype(int).tolist() if number.decimals == 0 else values.tolist()
    absent = rng.random(len(latent)) < number.missing
    return [None if gone else value for value, gone in zip(listed, absent.tolist(), strict=True)]


def _contract(form: Form) -> str:
    """The data contract: what is public is said here, and only here."""
    lines = [f"name: {form.title}", "version: 1", f"key: {form.key}", f"task: {form.task}", "k: 10"]
    classes = ", ".join(f'"{value}"' for value in form.classes)
    if form.task == "classification":
        lines += [f"target: {form.label}", f'positive: "{form.classes[1]}"']
    else:
        lines += [f"target: {form.amount.name}"]
    lines += ["columns:", f'  {form.key}: {{type: string, unique: true, pattern: "{form.prefix}[0-9]{{8}}"}}']
    for name in (form.person, form.mail, form.place, form.note):
        lines.append(f"  {name}: {{type: string, feature: false}}")
    for name, values in form.public.items():
        lines.append(f"  {name}: {{type: string, allowed: [{', '.join(values)}], public: true}}")
    for number in form.numbers:
        kind = "integer" if number.decimals == 0 else "number"
        nullable = ", nullable: true" if number.missing else ""
        lines.append(f"  {number.name}: {{type: {kind}, min: {number.low:g}, max: {number.high:.0f}{nullable}}}")
    lines.append(f"  {form.label}: {{type: string, allowed: [{classes}], public: true, feature: false}}")
    amount = form.amount
    lines.append(f"  {amount.name}: {{type: number, min: {amount.low:g}, max: {amount.high:g}, feature: false}}")
    first = next(iter(form.public))
    lines += [f"slices: [{first}, {sorted(number.name for number in form.numbers)[3]}]", "rows: {min_rows: 100}"]
    return "\n".join(lines) + "\n"
