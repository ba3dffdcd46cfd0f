"""A chapter runs again when, and only when, something that its results depend on has changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scoreatlas.book.chapters import find, select
from scoreatlas.book.keys import runs
from scoreatlas.book.sources import Sources
from scoreatlas.cli import main
from scoreatlas.errors import AtlasError

Edit = Callable[[Path, str, str], None]


def keys(root: Path, profile: str = "quick", device: str = "cpu", seed: int = 0) -> dict[str, str]:
    return {run.chapter.name: run.key for run in runs(find(root), profile, device, seed)}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_prose_edit_changes_nothing(mini: Path, edit: Edit) -> None:
    before = keys(mini)
    edit(mini / "notebooks/alpha.md", "Prose of alpha.", "Other prose, with an equation $x$ and a\n\n## new section")
    assert changed(before, keys(mini)) == set()


@pytest.mark.parametrize(
    ("old", "new"), [("profile is", "the profile is"), ("[hide-input]", "[hide-input, raises-exception]")]
)
def test_code_and_tags_count(mini: Path, edit: Edit, old: str, new: str) -> None:
    before = keys(mini)
    edit(mini / "notebooks/alpha.md", old, new)
    assert changed(before, keys(mini)) == {"alpha"}


@pytest.mark.parametrize(
    ("module", "importers"),
    [
        ("base", {"alpha"}),  # through one, by a relative import, in a function
        ("one", {"alpha"}),
        ("two", {"beta"}),  # from the package, in a branch
        ("unused", set()),
        ("__init__", {"alpha", "beta"}),  # importing scoreatlas.one runs it
        ("bench/__init__", {"beta"}),
    ],
)
def test_module_edit_runs_exactly_its_importers(mini: Path, module: str, importers: set[str]) -> None:
    before = keys(mini)
    path = mini / f"src/scoreatlas/{module}.py"
    path.write_text(path.read_text() + "# changed\n")
    assert changed(before, keys(mini)) == importers


@pytest.mark.parametrize(
    ("file", "readers"),
    [("src/scoreatlas/data/files/manifest.json", {"beta"}), ("benchmarks/results/quick/toy/2.json", {"beta"}),
     ("benchmarks/results/full/toy/1.json", set()), ("benchmarks/results/quick/other/1.json", set())],
)  # fmt: skip
def test_data_and_records_count_for_those_who_read_them(mini: Path, file: str, readers: set[str]) -> None:
    before = keys(mini)
    (mini / file).parent.mkdir(parents=True, exist_ok=True)
    (mini / file).write_text('{"new": 1}')
    assert changed(before, keys(mini)) == readers


def test_parameters_count_and_a_revert_finds_the_old_key(mini: Path, edit: Edit) -> None:
    before = keys(mini)
    for other in (keys(mini, profile="full"), keys(mini, device="cuda"), keys(mini, seed=1)):
        assert changed(before, other) == {"alpha", "beta"}
    edit(mini / "src/scoreatlas/two.py", "2", "3")
    edit(mini / "src/scoreatlas/two.py", "3", "2")
    assert keys(mini) == before


def test_searching_for_modules_depends_on_all_that_can_be_found(mini: Path) -> None:
    (mini / "src/scoreatlas/finder.py").write_text("import pkgutil\nimport scoreatlas.bench\n")
    assert "scoreatlas.bench.report" in Sources(mini / "src").closure(["scoreatlas.finder"])


def test_a_chapter_needs_one_parameters_cell_and_python(mini: Path, edit: Edit) -> None:
    edit(mini / "notebooks/beta.md", "if False:", "if False")
    with pytest.raises(AtlasError, match=r"beta\.md, code cell 2, line 1: "):
        keys(mini)
    edit(mini / "notebooks/beta.md", "[parameters]", "[parameter]")
    with pytest.raises(AtlasError, match=r"beta\.md: 0 code cells are tagged `parameters`"):
        keys(mini)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["book", "plan", "gamma"], "error: 'gamma' is not a chapter; there are alpha, beta\n"),
        (["book", "execute", "--profile", "huge"], "error: no profile 'huge'; there are quick and full\n"),
        (["book", "build", "--device", "tpu"], "error: no device 'tpu'; there are cpu and cuda\n"),
        (["book", "execute", "--jobs", "0"], "error: --jobs 0: at least 1 is needed\n"),
    ],
)
def test_bad_input_is_one_line(
    mini: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mini / "notebooks")
    monkeypatch.setattr("sys.argv", ["scoreatlas", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == message


def test_names_of_a_chapter(mini: Path) -> None:
    for name in ("alpha", "notebooks/alpha.md"):
        assert [c.name for c in select(mini, [name])] == ["alpha"]
    (mini / "notebooks/part").mkdir()
    (mini / "notebooks/part/alpha.md").write_text((mini / "notebooks/alpha.md").read_text())
    with pytest.raises(AtlasError, match="'alpha' fits several chapters"):
        select(mini, ["alpha"])


def test_every_chapter_of_this_book_is_in_the_contents_and_numbered() -> None:
    import yaml

    root = Path(__file__).parents[2]
    contents = (root / "_toc.yml").read_text()
    numbers = yaml.safe_load((root / "_config.yml").read_text())["sphinx"]["config"]["atlas_numbers"]
    for chapter in find(root):
        assert f"file: {chapter.docname}\n" in contents, f"add {chapter.docname} to _toc.yml"
        assert chapter.docname in numbers, f"add {chapter.docname} to atlas_numbers in _config.yml"
    assert len(set(numbers.values())) == len(numbers)
