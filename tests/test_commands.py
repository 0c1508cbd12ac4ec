"""The command line says what is wrong in one line and never with a traceback."""

import pytest

from teramind.__main__ import main


def test_every_command_is_listed_with_what_it_does(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "headline  Print an evaluation's table as one line of JSON." in " ".join(
        capsys.readouterr().out.split("\n")
    )


@pytest.mark.parametrize("content", ["words, and\nmore, words, than, columns\n", "a,b\n1,2\n"])
def test_a_mistake_is_one_line(tmp_path, capsys, content):
    table = tmp_path / "table.csv"
    table.write_text(content)
    assert main(["headline", str(table)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {table}: not an evaluation's table: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
