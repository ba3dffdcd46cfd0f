"""The knowledge base: the real file is valid, a defect is one clear line, and nothing is lost on the way out."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pybtex.database import parse_file

from scoreatlas import knowledge
from scoreatlas.bibliography import parse
from scoreatlas.knowledge import BIBLIOGRAPHY, KnowledgeError, load, validate
from scoreatlas.vocabulary import CHAPTERS, FAMILIES, PARTS

# The systems that the book set out to treat: the survey's chapters, then the papers added since.
EXPECTED = """
ho2020ddpm song2021ddim song2021sde dhariwal2021adm ho2022cfg ronneberger2015unet peebles2023dit
dit_incontext dit_crossattn dit_adaln dit_adaln_zero esser2024sd3 lipman2023fm kobyzev2021nf
venkatakrishnan2013pnp graikos2022pnp luo2022unified yang2024survey fuest2024replearn na2024scoreembed
li2023survey mccann2023score zhang2021dpir dong2019dpdnn kawar2022ddrm chung2023dps chung2023blinddps
chihaoui2024bird song2024resample lugmayr2022repaint wang2024stablesr lin2024diffbir sun2024ccsr
chung2024dds xu2024medsyn wu2024mdps wegner2021highdim cao2024survey zhang2023controlnet
wolleb2022segensemble wu2024medsegdiffv2 lin2024sdseg kolbeinsson2024rnd dombrowski2023foba
hsiao2024pnpdistill sauer2024add mei2024codi rampas2023paella chen2024loco hedlin2023correspondence
efron2011tweedie rudin1992tv kadkhodaie2020implicit kadkhodaie2021stochastic guth2025dual
kadkhodaie2024memgen kadkhodaie2024gahb mohan2020biasfree kadkhodaie2023multiscale
kadkhodaie2025representation zhang2025optimal kadkhodaie2024featureguided

li2025mars kim2023dmcmc ma2024optimalbc lu2022dpmsolver li2023dpmot zhang2024bdia wallace2023edict
xu2024infedit liu2024rddm shi2024resfusion yue2025resshift wang2024samdiffsr wang2025rapsr sigillo2025resqu
zhang2024s3diff li2025difiisr mardani2024reddiff fei2023gdp patel2025flowchef kazerouni2023survey
zheng2024drdm nolan2025ads chung2023diffusionmbir rouzrokh2024radrotator dong2024hnseg wang2023painters
horvat2024gauge das2023spd chen2024mtdiffusion wang2024subspace aiello2024mmdddm shang2023ptq4dm
zhu2025instarevive chen2025idm stevens2024dehazing miao2023dds2m zhou2024emdm liu2025diff9d richter2023sgmse
feng2023diffpose
""".split()

ROOT = BIBLIOGRAPHY.parent
GOOD = """
@article{chung2023dps,
  author = {Hyungjin Chung and Jeongsol Kim},
  title = {Diffusion Posterior Sampling},
  year = {2023},
  eprint = {2209.14687},
  doi = {10.1145/3626235},
  system = {DPS},
  family = {guidance},
  summary = {Moves down the gradient of the residual.},
  pitfall = {Norm or squared norm.},
  tasks = {inpainting, deblurring},
  needs = {},
  blind = {no},
  nonlinear = {yes},
  modality = {image},
  difficulty = {S},
  code = {https://github.com/DPS2022/diffusion-posterior-sampling},
  commit = {effbde7},
  chapter = {4.2},
  implementation = {scoreatlas.tweedie},
}
"""

DEFECTS = {
    "duplicate key": (
        "@article{chung2023dps",
        "@misc{chung2023dps, author = {A}, title = {T}, year = {2000}}\n@article{chung2023dps",
        "used twice",
    ),
    "broken block": ("  year = {2023},", "  year = {2023,", "cannot be parsed"),
    "field twice": ("  year = {2023},", "  year = {2023},\n  year = {2024},", "given twice: year"),
    "unknown family": ("{guidance}", "{guidence}", "family 'guidence'"),
    "unknown task": ("inpainting, deblurring", "inpainting, deblurrring", "tasks 'inpainting, deblurrring'"),
    "unknown need": ("needs = {}", "needs = {luck}", "needs 'luck'"),
    "unknown chapter": ("{4.2}", "{4.99}", "chapter '4.99'"),
    "neither yes nor no": ("blind = {no}", "blind = {maybe}", "blind 'maybe'"),
    "no such module": ("scoreatlas.tweedie", "scoreatlas.tweedy", "does not import"),
    "no such name": ("scoreatlas.tweedie", "scoreatlas.tweedie.Nothing", "does not import"),
    "malformed arXiv number": ("2209.14687", "2209.146", "is not an arXiv number"),
    "malformed DOI": ("10.1145/3626235", "doi.org/10.1145/3626235", "is not a DOI"),
    "malformed address": ("https://github.com", "github.com", "is not an https address"),
    "missing field": ("  pitfall = {Norm or squared norm.},\n", "", "field pitfall is missing"),
    "empty field": ("{Norm or squared norm.}", "{}", "pitfall '' is not filled in"),
    "misspelt field": ("  commit =", "  comit =", "field comit is not known"),
    "suite without implementation": ("  implementation = {scoreatlas.tweedie}", "  suite = {exact}", "suite is given"),
}


@pytest.fixture(scope="module")
def systems() -> list[knowledge.System]:
    return load()


@pytest.fixture(scope="module")
def page() -> str:
    return knowledge.catalogue_page()


def test_the_file_has_no_problem():
    assert validate() == []


def test_every_expected_system_is_there(systems):
    keys = [system.key for system in systems]
    assert len(EXPECTED) == len(set(EXPECTED)) == 102
    assert set(EXPECTED) <= set(keys)
    assert len(keys) == len(set(keys))


def test_pybtex_reads_the_same_entries():
    """Sphinx reads the file with pybtex, we with bibtexparser: same keys, same fields, same text."""
    theirs = parse_file(str(BIBLIOGRAPHY)).entries
    ours = parse(BIBLIOGRAPHY).entries_dict
    assert list(theirs) == list(ours)
    for key, entry in ours.items():
        fields = {name: field.value for name, field in entry.fields_dict.items() if name != "author"}
        assert dict(theirs[key].fields) == fields, key


@pytest.mark.parametrize(
    ("key", "year", "eprint", "authors", "last"),
    [
        ("ho2020ddpm", 2020, "2006.11239", 3, "Pieter Abbeel"),
        ("chung2023dps", 2023, "2209.14687", 5, "Jong Chul Ye"),
        ("kawar2022ddrm", 2022, "2201.11793", 4, "Jiaming Song"),
        ("lugmayr2022repaint", 2022, "2201.09865", 6, "Luc Van Gool"),
        ("rudin1992tv", 1992, "", 3, "Emad Fatemi"),
    ],
)
def test_well_known_papers(systems, key, year, eprint, authors, last):
    system = {s.key: s for s in systems}[key]
    assert (system.year, system.eprint, len(system.authors), system.authors[-1]) == (year, eprint, authors, last)


def test_implemented_solvers_cite_the_paper_of_their_entry(systems):
    """The header of a solver's file names the arXiv number that the entry has."""
    checked = 0
    for system in systems:
        if system.suite and system.eprint:
            module = system.implementation.rpartition(".")[0].replace(".", "/")
            source = (Path(knowledge.__file__).parents[1] / f"{module}.py").read_text(encoding="utf-8")
            assert system.eprint in source, f"{system.implementation} does not cite {system.eprint}"
            checked += 1
    assert checked >= 5


def test_the_good_entry_of_this_file_is_good(tmp_path):
    assert _problems_of(tmp_path, GOOD) == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_one_line_that_names_the_key(tmp_path, defect):
    old, new, reason = DEFECTS[defect]
    assert GOOD.count(old) == 1
    (line,) = _problems_of(tmp_path, GOOD.replace(old, new))
    assert re.match(r"test\.bib:\d+: chung2023dps: ", line)
    assert reason in line and "\n" not in line


def test_a_broken_block_does_not_hide_its_neighbours(tmp_path):
    second = GOOD.replace("chung2023dps", "other2024").replace("{guidance}", "{x}")
    lines = _problems_of(tmp_path, GOOD.replace("{2023},", "{2023,") + second)
    assert [line.split(": ")[1] for line in lines] == ["chung2023dps", "other2024"]


def test_load_refuses_a_defective_or_missing_file_in_one_line(tmp_path):
    path = tmp_path / "test.bib"
    path.write_text(GOOD.replace("{guidance}", "{x}").replace("{4.2}", "{y}"))
    with pytest.raises(KnowledgeError, match=r"^test\.bib:2: chung2023dps: family 'x' [^\n]* \(and 1 more[^\n]*\)$"):
        load(path)
    with pytest.raises(KnowledgeError, match=r"^[^\n]*nowhere\.bib: cannot be read [^\n]*$"):
        load(tmp_path / "nowhere.bib")


def test_check_ends_with_status_one(tmp_path, capsys):
    path = tmp_path / "test.bib"
    path.write_text(GOOD.replace("{guidance}", "{x}"))
    with pytest.raises(SystemExit) as stop:
        knowledge.check(path)
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_coverage_counts_every_system_once(systems):
    counts = knowledge.coverage(systems)
    assert sum(number for number, _ in counts.values()) == len(systems)
    assert sum(done for _, done in counts.values()) == sum(bool(system.implementation) for system in systems)
    assert {family for family, _ in counts} <= set(FAMILIES) and {part for _, part in counts} <= set(PARTS)
    assert {chapter.partition(".")[0] for chapter in CHAPTERS} == set(PARTS)


def test_the_matrix_of_the_page_adds_up(systems, page):
    """Row sums, column sums and the total, read back from the page."""
    rows = [
        [int(found[1]) if (found := re.search(r">(\d+)</a>", cell)) else 0 for cell in line.split("|")[2:-1]]
        for line in page.splitlines()
        if line.startswith("| [") or line.startswith("| all")
    ]
    *families, total = rows
    assert all(row[-1] == sum(row[:-1]) for row in rows)
    assert [sum(column) for column in zip(*families, strict=True)] == total
    assert total[-1] == len(systems)


def test_every_system_has_one_card_with_its_anchor_and_facets(systems, page):
    cards = dict(re.findall(r"^\(system-([^)]+)\)=\n```\{container\} system (.*)$", page, flags=re.MULTILINE))
    assert len(cards) == page.count("```{container} system") == len(systems)
    for system in systems:
        needs = {f"needs-{need}" for need in system.needs}
        implemented = {"implemented"} if system.implementation else set()
        assert set(cards[system.key].split()) == {
            f"family-{system.family}", f"part-{system.part.lower()}", *needs, *implemented,
        }  # fmt: skip
        assert page.count(f"{{cite:t}}`{system.key}`") == 1


def test_the_filter_offers_what_the_cards_have(systems, page):
    offered = Counter(re.findall(r'<option value="([^"]+)">', page))
    assert {system.family for system in systems} <= set(offered)
    assert {system.part.lower() for system in systems} <= set(offered)
    assert {need for system in systems for need in system.needs} <= set(offered)


def test_export_round_trips(tmp_path, systems):
    knowledge.export(tmp_path)
    as_json = json.loads((tmp_path / "systems.json").read_text(encoding="utf-8"))
    with (tmp_path / "systems.csv").open(encoding="utf-8", newline="") as file:
        as_csv = list(csv.DictReader(file))
    assert [row["key"] for row in as_json] == [row["key"] for row in as_csv] == [system.key for system in systems]
    for system, json_row, csv_row in zip(systems, as_json, as_csv, strict=True):
        assert tuple(json_row["tasks"]) == tuple(csv_row["tasks"].split("; ")) == system.tasks
        assert json_row["summary"] == csv_row["summary"] == system.summary
    assert sorted(path.name for path in tmp_path.iterdir()) == ["systems.csv", "systems.json"]


def _problems_of(folder: Path, text: str) -> list[str]:
    path = folder / "test.bib"
    path.write_text(text, encoding="utf-8")
    return validate(path)


def test_every_system_of_the_foundations_leads_to_its_section_its_code_and_its_record():
    """Chapter 2: the page of the number exists and cites the system; code, or an audit in cells; evidence that exists.

    Surveys and taxonomies are cited and have no code.
    """
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["atlas_numbers"]
    pages = {str(number): (ROOT / f"{page}.md").read_text() for page, number in config.items()}
    audited = {"na2024scoreembed"}  # what its loss is, is shown in cells: no sampler or network of ours is behind it
    systems = [s for s in load() if s.part == "2"]
    assert {s.chapter for s in systems} == {"2.1", "2.2", "2.3", "2.4", "2.5", "2.6"}
    for s in systems:
        paper = [o.key for o in systems if o.eprint and o.eprint == s.eprint] or [s.key]  # variants share one
        cited = rf"\{{cite[:\w]*\}}`[^`]*\b({'|'.join(paper)})\b[^`]*`"
        assert re.search(cited, pages[s.chapter]), f"{s.chapter} does not cite {s.key}"
        if s.family == "survey":
            continue
        assert s.implementation or s.key in audited, f"{s.key} has no implementation"
        assert s.suite or s.record, f"{s.key} has no record"


def test_a_record_that_is_not_there_is_named():
    from scoreatlas.bibliography import evidence

    assert evidence("chapter") == "" == evidence("benchmarks/results/quick/cards, chapter")
    assert evidence("weights/none.json, chapter") == "names 'weights/none.json', which the checkout lacks"
