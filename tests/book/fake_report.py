"""A stand-in for ``scoreatlas.bench.report``: one table with records in the quick profile only."""

from types import SimpleNamespace

import pandas as pd

ROWS = [("DPS", 0.1234, 100.0), ("DDRM", 0.0456, 20.0), ("PiGDM", 0.0789, 100.0)]


def tables() -> dict[str, SimpleNamespace]:
    return {"toy": SimpleNamespace(id="toy", suite="toy", caption="Distance to the truth and its price")}


def table(id: str, profile: str = "quick") -> pd.DataFrame:
    rows = ROWS if profile == "quick" else []
    columns = ["solver", "W2", "calls"]
    frame = pd.DataFrame([(s, f"{w:.3f} ± 0.002", f"{c:.0f}") for s, w, c in rows], columns=columns)
    frame.attrs["raw"] = pd.DataFrame([(None, w, c) for _, w, c in rows], columns=columns)
    frame.attrs["best"] = pd.DataFrame([(False, w == 0.0456, c == 20) for _, w, c in rows], columns=columns)
    return frame


def provenance(id: str, profile: str) -> dict[str, object]:
    return {"profile": profile, "device": "cpu", "commit": "abc1234", "records": len(ROWS), "failed": 0}


def to_csv(id: str, profile: str) -> str:
    return table(id, profile).to_csv(index=False)


def to_latex(id: str, profile: str) -> str:
    return "\\begin{tabular}{lrr}\n\\toprule\n\\end{tabular}\n"


def to_bibtex(id: str, profile: str) -> str:
    return f"@misc{{scoreatlas-{id},\n  title = {{Table {id}}},\n  note = {{profile {profile}}}\n}}\n"
