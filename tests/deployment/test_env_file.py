"""Lines of .env: what is written is read alike by a shell and by docker compose, whose rules `parse` holds."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.deployment.env_file import env_line, parse, quoted, without_names
from include.errors import SettingError
from tests.support.compose import ROOT

# Compose's own library (compose-go 2.16.2) was seen to read each of these lines as the value.
SEEN = {
    "plain-1.2:3/4,5@6%7+8=": "plain-1.2:3/4,5@6%7+8=",
    "two words": "'two words'",
    "hash #1": "'hash #1'",
    "$HOME ${X} `id`": "'$HOME ${X} `id`'",
    'say "hi"': "'say \"hi\"'",
    "a\\b\\n": "'a\\b\\n'",
    "it's": '"it\'s"',
    "it's $5": '"it\'s \\$5"',
    'it\'s "\\n"': '"it\'s \\"\\\\n\\""',
    "ends with \\": '"ends with \\\\"',
    "$'\\\"": '"\\$\'\\\\\\""',
    " spaces ": "' spaces '",
    "*~!?[](){}<>|;&": "'*~!?[](){}<>|;&'",
    "größer": "'größer'",
    "": "''",
}


@pytest.mark.parametrize(("value", "written"), SEEN.items())
def test_written_as_both_read_it(value: str, written: str):
    assert quoted("NAME", value) == written
    assert parse(f"NAME={written}\n") == {"NAME": value}


def by_shell(text: str, names: list[str]) -> dict[str, str]:
    script = "set -a; . /dev/stdin; exec env -0"
    done = subprocess.run(["sh", "-c", script], input=text, capture_output=True, text=True, check=True)
    found = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    return {name: found[name] for name in names}


def test_a_shell_reads_the_same():
    values = {f"NAME_{number}": value for number, value in enumerate(SEEN)}
    text = "".join(env_line(name, value) for name, value in values.items())
    assert by_shell(text, list(values)) == values
    assert parse(text) == values


# A shell takes a while to start: many values for each.
SIGNS = st.text(st.sampled_from("ab1 '\"\\$`#={}%@!é"), max_size=12)


@settings(max_examples=15, deadline=None)
@given(st.lists(SIGNS, min_size=1, max_size=60))
def test_any_value_is_read_back_or_refused(values: list[str]):
    written, wanted = "", {}
    for number, value in enumerate(values):
        try:
            written += env_line(f"NAME_{number}", value)
        except SettingError:
            assert "`" in value
        else:
            wanted[f"NAME_{number}"] = value
    assert parse(written) == wanted
    assert by_shell(written, list(wanted)) == wanted


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "it's `this`"])
def test_what_cannot_be_written_is_refused_by_name(value: str):
    with pytest.raises(SettingError, match=r"^SASL_PASSWORD: ") as error:
        quoted("SASL_PASSWORD", value)
    assert "it's" not in str(error.value)


# Compose's own library (compose-go 2.16.2) was seen to read each of these lines so.
READ = {
    "export A=1": {"A": "1"},
    "export\tA=1": {"A": "1"},
    "A = two words  # and a comment": {"A": "two words"},
    "A=no#comment": {"A": "no#comment"},
    "A=#x": {"A": "#x"},
    'A="x # y" # z': {"A": "x # y"},
    "A=": {"A": ""},
    "A=  \nB=1": {"A": "", "B": "1"},
    "A=1   \n  B=2\t": {"A": "1", "B": "2"},
    "A: yaml": {"A": "yaml"},
    "A=1\nA=2": {"A": "2"},
    "A='over\ntwo'\nB=1": {"A": "over\ntwo", "B": "1"},
    "A='it\\'s'": {"A": "it's"},
    'A="\\0101\\n\\$x"': {"A": "A\n$x"},
    "A=x$$y$": {"A": "x$y$"},
    "A=x$.y$1$(z)": {"A": "x$.y$1$(z)"},
    "Z=1\nA=${Z}x$Z\nB=\"$A\"\nC='$A'": {"Z": "1", "A": "1x1", "B": "1x1", "C": "$A"},
    'A=ab"c"': {"A": 'ab"c"'},
    "A.B-c=1": {"A.B-c": "1"},
    "A\nexport B\nC=1": {"C": "1"},
    "# A=1\n\n \t# B\nC=1": {"C": "1"},
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("text", "values"), READ.items())
def test_lines_are_read_as_compose_reads_them(text: str, values: dict[str, str], end: str):
    assert parse(text.replace("\n", end) + end) == values


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hunter2 of mine", r"line 2: docker compose cannot read it"),
        ("$env:A='hunter2'", r"line 2: docker compose cannot read it"),
        ("set A=hunter2", r"line 2: docker compose cannot read it"),
        ("export", r"line 2: docker compose cannot read it"),
        ("A='hunter2", r"line 2: A: the quotation mark before the value is not closed"),
        ('A="hunter2\nC="x"', r"line 2: A: text follows the closing quotation mark"),
        ("A='hunter2'b", r"line 2: A: text follows"),
        ("A='hunter2'#b", r"line 2: A: text follows"),
        ("A='hunter2' C=1", r"line 2: A: text follows"),
        ("A= # hunter2", r"line 2: A: docker compose reads the comment as part"),
        ("A=hunter2\t# mine", r"line 2: A: docker compose reads the comment as part"),
        ("A=\u201chunter2\u201d", r"line 2: A: the value begins with a typographic quotation mark"),
        ("A=\u2018hunter2\u2019", r"line 2: A: the value begins with a typographic quotation mark"),
        ("A={{ hunter2 }}", r"line 2: A: still contains a placeholder"),
        ('A="x {{hunter2}}"', r"line 2: A: still contains a placeholder"),
        ("A=<HUNTER 2>", r"line 2: A: still contains a placeholder"),
        ("A=hunter2$NOWHERE_SET", r"line 2: A: refers to \$NOWHERE_SET, which no line before it sets"),
        ('A="hunter2${NOWHERE_SET}"', r"line 2: A: refers to \$NOWHERE_SET"),
        ("A=hunter2${", r"line 2: A: contains \$\{ without a name and }"),
        ("'\n'\nA=hunter2", r"line 2: docker compose cannot read it"),
        ("B='\n'\nA=\"hunter2", r"line 4: A: the quotation mark"),
    ],
)
def test_a_line_that_cannot_be_read_with_certainty_is_refused_by_number_and_name(text: str, why: str):
    with pytest.raises(SettingError, match=rf"^/my/\.env, {why}") as error:
        parse(f"FIRST=1\n{text}\n", "/my/.env")
    assert "hunter2" not in str(error.value)


def test_a_reference_is_to_the_environment_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SET_ELSEWHERE", "there")
    assert parse("SET_ELSEWHERE=here\nA=$SET_ELSEWHERE\n")["A"] == "there"


def test_a_default_of_a_reference_stays_as_it_is_written():
    assert parse("A=x${NOWHERE_SET:-$B}y\n") == {"A": "x${NOWHERE_SET:-$B}y"}


def test_the_example_is_read_alike_by_compose_and_shells():
    """With every # taken away: one of its lines had a comment that compose took for the password."""
    text = (ROOT / ".env.example").read_text()
    text = re.sub(r"^# (?=[A-Z][A-Z0-9_]+=)", "", text, flags=re.MULTILINE)
    found = parse(text)
    assert len(found) > 60
    assert [name for name, value in found.items() if "#" in value] == []
    assert by_shell(text, list(found)) == found


def test_lines_are_taken_out_whole():
    text = "# kept\nA=1\nexport B='over\n\ntwo' # gone\nC=\"x # y\"\nA=2\nD=4"
    assert without_names(text, ["A", "B"]) == '# kept\nC="x # y"\nD=4'
    assert without_names(text, ["D"]) == text.removesuffix("D=4")
    assert without_names(text, ["over", "E"]) == text
