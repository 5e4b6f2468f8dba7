"""Tables to read: shown whole, whatever pandas' options of the reader are."""

from collections.abc import Hashable
from html import escape

import pandas as pd

# What pandas would cut, round or mark up by the reader's own settings.
OPTIONS = {
    "display.max_colwidth": None, "display.precision": 6, "display.float_format": None, "display.html.border": 1,
    "display.html.use_mathjax": False, "display.colheader_justify": "right", "display.multi_sparse": True,
    "display.html.table_schema": False, "display.unicode.east_asian_width": False, "display.chop_threshold": None,
    "display.show_dimensions": False,
}  # fmt: skip
# Columns of a claims table that may hold one value in all its rows, and are then told above it.
LIFTED = ("claim", "dataset", "network", "learning_rate", "averaging", "samples", "steps", "measure", "setting", "note")
LABELS = {"dataset": "data set", "learning_rate": "η", "samples": "N", "epoch": "epochs"}


class Table:
    """A table that Jupyter and a terminal show whole, below a line of text; texts in it are never run as HTML."""

    def __init__(self, frame: pd.DataFrame, caption: str = "") -> None:
        self.frame, self.caption = frame, caption
        self._index = not isinstance(frame.index, pd.RangeIndex)  # which says nothing

    def __repr__(self) -> str:
        with pd.option_context(*(part for pair in OPTIONS.items() for part in pair)):
            return f"{self.caption}\n" * bool(self.caption) + self.frame.to_string(index=self._index)

    def _repr_html_(self) -> str:
        with pd.option_context(*(part for pair in OPTIONS.items() for part in pair)):
            return f"<p>{escape(self.caption)}</p>" * bool(self.caption) + self.frame.to_html(index=self._index)


def whole(frame: pd.DataFrame | pd.Series) -> Table:
    """A table as it is, to be shown whole."""
    return Table(frame.to_frame() if isinstance(frame, pd.Series) else frame)


def rounded(claims: pd.DataFrame) -> Table:
    """A claims table to read: three significant digits, empty columns left out, what is common to all rows above it."""
    text = in_words(claims)
    text = text.loc[:, (text != "").any()]
    if len(text) == 1:
        return Table(text.T.set_axis([""], axis=1))
    common = [name for name in LIFTED if name in text and text[name].nunique() == 1]
    facts = [f"{LABELS.get(name, name)}: {text[name].iloc[0]}" for name in common]
    caption = f"In all rows: {'; '.join(facts)}." if facts and len(text) else ""
    return Table(text.drop(columns=common).rename(columns=LABELS).reset_index(drop=True), caption)


def in_words(claims: pd.DataFrame) -> pd.DataFrame:
    """All cells of a claims table as text, "" for what is missing."""
    formats = {"value": "{:.3g}", "low": "{:.3g}", "high": "{:.3g}", "learning_rate": "{:g}", "steps": "{:,.0f}"}
    formats |= {"samples": "{:.0f}", "n": "{:.0f}", "epoch": "{:g}"}

    def text(name: Hashable, value: object) -> str:
        if pd.isna(value):
            return ""
        return formats.get(str(name), "{}").format(value) if isinstance(value, (int, float)) else str(value)

    return pd.DataFrame({name: [text(name, value) for value in claims[name]] for name in claims}, index=claims.index)
