"""Tables as files: numbers for a spreadsheet, a table for a paper, the entry that cites it."""

import csv
import io
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scoreatlas.bench.aggregate import Grid, Place, Shown, grid, settings
from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.suite import BENCHMARKS
from scoreatlas.bench.tabulate import provenance, table

LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$"}


def to_csv(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """One line per number, at full precision, with its 95 % interval, seeds, failures and notes."""
    g, out = grid(id, profile, root), io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["solver", "settings", "source", "world", "task", "metric", "value", "low", "high", "seeds", "failed", "note"]
    )
    for name, fields, source, place, shown in _cells(g):
        e = shown.estimate
        ends = ["", "", ""] if e is None else ["" if v != v else repr(v) for v in e]
        writer.writerow([name, fields, source, *place, *ends, shown.seeds, shown.failed, shown.note])
    return out.getvalue()


def to_latex(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """A table environment with booktabs rules, caption, label and the provenance as a comment."""
    frame, g = table(id, profile, root), grid(id, profile, root)
    body = [[_escape(str(v)) for v in row] for row in frame.itertuples(index=False)]
    head = [_escape(str(c)) for c in frame.columns]
    told = ", ".join(f"{k} {v}" for k, v in provenance(id, profile, root).items())
    lines = [
        f"% {told}", r"\begin{table}", r"\centering", f"\\caption{{{_escape(g.spec.caption)}}}", f"\\label{{tab:{id}}}",
        f"\\begin{{tabular}}{{{'l' * 3}{'r' * (len(head) - 3)}}}", r"\toprule", f"{' & '.join(head)} \\\\", r"\midrule",
        *(f"{' & '.join(row)} \\\\" for row in body), r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def to_markdown(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """A pipe table, its caption and its provenance."""
    frame, g = table(id, profile, root), grid(id, profile, root)
    rows = [list(frame.columns), ["---"] * len(frame.columns), *(list(r) for r in frame.itertuples(index=False))]
    lines = [f"| {' | '.join(str(v).replace('|', chr(92) + '|') for v in row)} |" for row in rows]
    told = " · ".join(f"{k} {v}" for k, v in provenance(id, profile, root).items())
    return "\n".join([f"**{id}** {g.spec.caption}", "", *lines, "", told]) + "\n"


def to_bibtex(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """The entry that cites the table as it stands."""
    told, g = provenance(id, profile, root), grid(id, profile, root)
    try:
        release = version("scoreatlas")
    except PackageNotFoundError:  # used from a source tree that is not installed
        release = "unreleased"
    year = told["dates"][:4] if told["dates"] else "n.d."
    fields = {
        "author": "{Score Atlas contributors}",
        "title": f"Score Atlas, table {id} ({profile} profile): {g.spec.caption}",
        "year": year,
        "version": release,
        "note": f"{told['records']} records, commit {told['commit']}, {told['dates']}",
    }
    lines = [f"  {name} = {{{re.sub(r'[%#&_]', lambda m: chr(92) + m[0], text)}}}," for name, text in fields.items()]
    return "\n".join([f"@misc{{scoreatlas-{id}-{profile},", *lines, "}"]) + "\n"


def _cells(g: Grid) -> Iterator[tuple[str, str, str, Place, Shown]]:
    for place in g.places:
        for e in g.entries:
            yield type(e.solver).__name__, settings(repr(e.solver)), e.source, place, g.cell(e, place)
        if g.spec.floor:
            yield "exact samples", "", "", place, g.floor(place)


def _escape(text: str) -> str:
    for label in LABELS.values():  # sigma_y is a symbol
        text = text.replace(label.text, label.text.replace("sigma_y", "\0"))
    return "".join(LATEX.get(c, c) for c in text).replace("\0", r"$\sigma_y$")
