"""Source gene names are matched to the panel without guessing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teramind.errors import UserError
from teramind.expression.panel import match_genes, read_panel, read_synonyms

PANEL = ("Gad1", "Slc17a7", "Th", "Cldn5")


def test_a_panel_is_one_gene_a_line(tmp_path):
    file = tmp_path / "panel.txt"
    file.write_text("# cortex\nGad1\n\n  Th  # dopamine\n")
    assert read_panel(file) == ("Gad1", "Th")


@pytest.mark.parametrize(
    ("text", "message"), [("Th\nGad1\nTh\n", "line 3.*'Th'.*line 1"), ("# none\n", "no genes")]
)
def test_a_faulty_panel_says_where(tmp_path, text, message):
    file = tmp_path / "panel.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_panel(file)


def test_a_missing_panel_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="absent"):
        read_panel(tmp_path / "absent.txt")


def test_synonyms_are_name_tab_panel_name(tmp_path):
    file = tmp_path / "synonyms.tsv"
    file.write_text("# name\tpanel\nGAD67\tGad1\nVGLUT1\tSlc17a7\n")
    assert read_synonyms(file) == {"GAD67": "Gad1", "VGLUT1": "Slc17a7"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("GAD67 Gad1\n", "line 1.*two columns"), ("a\tGad1\na\tTh\n", "line 2.*'Gad1' and 'Th'")],
)
def test_faulty_synonyms_say_where(tmp_path, text, message):
    file = tmp_path / "synonyms.tsv"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_synonyms(file)


def test_exact_beats_synonym_beats_case():
    match = match_genes(
        ["Gad1", "gad1", "VGLUT1", "slc17a7", "TH", "Blank-1"], PANEL, {"VGLUT1": "Slc17a7"}
    )
    assert match.index == {"Gad1": 0, "VGLUT1": 1, "TH": 2}
    assert match.status == {"Gad1": "exact", "VGLUT1": "synonym", "TH": "case"}
    assert match.extra == ("gad1", "slc17a7", "Blank-1")
    assert (match.matched, match.missing) == (("Gad1", "Slc17a7", "Th"), ("Cldn5",))
    assert match.fraction == 3 / 4


def test_other_spellings_of_a_gene_that_is_there_are_told():
    match = match_genes(["Gad1", "GAD1", "gad1", "Blank-1"], PANEL)
    assert match.index == {"Gad1": 0}
    assert match.lookalikes == {"GAD1": "Gad1", "gad1": "Gad1"}


def test_ambiguous_case_matches_nothing():
    assert match_genes(["TH", "th"], PANEL).index == {}
    assert match_genes(["th"], ["Th", "TH"]).index == {}


def test_names_of_one_gene_add_up_in_the_table():
    match = match_genes(["Th", "Th-v2", "Blank-1"], PANEL, {"Th-v2": "Th"})
    table = match.table({"Th": 3, "Th-v2": 4, "Blank-1": 9})
    rows = {(r.panel_gene, r.status, r.source_gene, r.molecules) for r in table.itertuples()}
    assert ("Th", "summed", "Th;Th-v2", 7) in rows
    assert ("", "extra", "Blank-1", 9) in rows
    assert ("Gad1", "missing", "", 0) in rows
    assert list(table.panel_gene[: len(PANEL)]) == list(PANEL)


def test_too_small_an_overlap_tells_numbers_and_near_matches():
    match = match_genes(["Gad1", "Slc17a7_v2"], PANEL)
    match.require(0.25)
    with pytest.raises(
        UserError, match=r"1 of 4 .*25.0%.*50.0%.*'Slc17a7_v2' for 'Slc17a7'"
    ) as hit:
        match.require(0.5)
    assert "\n" not in str(hit.value)


@settings(max_examples=60)
@given(
    names=st.lists(st.text("aAbB", min_size=1, max_size=2)),
    panel=st.sets(st.text("aAbB", min_size=1, max_size=2), min_size=1),
)
def test_every_name_is_matched_or_extra_and_every_panel_gene_found_or_missing(names, panel):
    match = match_genes(names, sorted(panel))
    assert set(match.index) | set(match.extra) == set(names)
    assert not set(match.index) & set(match.extra)
    assert set(match.matched) | set(match.missing) == panel
    assert panel & set(names) <= set(match.matched)
    assert all(
        name.casefold() == match.panel[place].casefold() for name, place in match.index.items()
    )
