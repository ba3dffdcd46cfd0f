"""Tables as files: numbers for a spreadsheet, a table for a paper, the entry that cites it."""

import csv
import io
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scoreatlas.bench.labels import LABELS
from scoreatlas.bench.sources import sheet
from scoreatlas.bench.suite import BENCHMARKS

LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$"}


def to_csv(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """One line per number, at full precision, with its 95 % interval, seeds, failures and notes."""
    s, out = sheet(id, profile, root), io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*s.file_heads, "world", "task", "metric", "value", "low", "high", "seeds", "failed", "note"])
    for words, place, shown in s.numbers():
        e = shown.estimate
        ends = ["", "", ""] if e is None else ["" if v != v else repr(v) for v in e]
        writer.writerow([*words, *place, *ends, shown.seeds, shown.failed, shown.note])
    return out.getvalue()


def to_latex(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """A table environment with booktabs rules, caption, label and the provenance as a comment."""
    s = sheet(id, profile, root)
    body = [[_escape(str(v)) for v in row] for row in s.frame.itertuples(index=False)]
    head, words = [_escape(str(c)) for c in s.frame.columns], len(s.heads)
    told = ", ".join(f"{k} {v}" for k, v in s.provenance.items())
    lines = [
        f"% {told}", r"\begin{table}", r"\centering", f"\\caption{{{_escape(s.spec.caption)}}}", f"\\label{{tab:{id}}}",
        f"\\begin{{tabular}}{{{'l' * words}{'r' * (len(head) - words)}}}", r"\toprule", f"{' & '.join(head)} \\\\",
        r"\midrule", *(f"{' & '.join(row)} \\\\" for row in body), r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def to_markdown(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """A pipe table, its caption and its provenance."""
    s = sheet(id, profile, root)
    frame = s.frame
    rows = [list(frame.columns), ["---"] * len(frame.columns), *(list(r) for r in frame.itertuples(index=False))]
    lines = [f"| {' | '.join(str(v).replace('|', chr(92) + '|') for v in row)} |" for row in rows]
    told = " · ".join(f"{k} {v}" for k, v in s.provenance.items())
    return "\n".join([f"**{id}** {s.spec.caption}", "", *lines, "", told]) + "\n"


def to_bibtex(id: str, profile: str = "quick", root: Path = BENCHMARKS) -> str:
    """The entry that cites the table as it stands."""
    s = sheet(id, profile, root)
    told = s.provenance
    try:
        release = version("scoreatlas")
    except PackageNotFoundError:  # used from a source tree that is not installed
        release = "unreleased"
    year = told["dates"][:4] if told["dates"] else "n.d."
    fields = {
        "author": "{Score Atlas contributors}",
        "title": f"Score Atlas, table {id} ({profile} profile): {s.spec.caption}",
        "year": year,
        "version": release,
        "note": f"{told['records']} records, commit {told['commit']}, {told['dates']}",
    }
    lines = [f"  {name} = {{{re.sub(r'[%#&_]', lambda m: chr(92) + m[0], text)}}}," for name, text in fields.items()]
    return "\n".join([f"@misc{{scoreatlas-{id}-{profile},", *lines, "}"]) + "\n"


def _escape(text: str) -> str:
    for label in LABELS.values():  # sigma_y is a symbol
        text = text.replace(label.text, label.text.replace("sigma_y", "\0"))
    return "".join(LATEX.get(c, c) for c in text).replace("\0", r"$\sigma_y$")
