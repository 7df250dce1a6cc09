"""Lines of .env that shells and docker compose read alike. `parse` implements compose's rules."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.deployment.env_file import env_line, is_placeholder, parse, quoted, without_names
from include.errors import SettingError
from tests.support.compose import ROOT

# compose-go 2.16.2, Compose's own library, reads each of these lines as this value.
QUOTED_VALUES = {
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


@pytest.mark.parametrize(("value", "written"), QUOTED_VALUES.items())
def test_value_is_quoted_for_compose_and_shells(value: str, written: str):
    assert quoted("NAME", value) == written
    assert parse(f"NAME={written}\n") == {"NAME": value}


def by_shell(text: str, names: list[str]) -> dict[str, str]:
    script = "set -a; . /dev/stdin; exec env -0"
    done = subprocess.run(["sh", "-c", script], input=text, capture_output=True, text=True, check=True)
    found = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    return {name: found[name] for name in names}


def test_shell_reads_the_quoted_values():
    values = {f"NAME_{number}": value for number, value in enumerate(QUOTED_VALUES)}
    text = "".join(env_line(name, value) for name, value in values.items())
    assert by_shell(text, list(values)) == values
    assert parse(text) == values


# A shell takes a while to start, so each one reads many values. `parse` rejects placeholders such as {{ }}.
CHARACTERS = st.sampled_from("ab1 '\"\\$`#={}%@!é")
TEXTS = st.text(CHARACTERS, max_size=12).filter(lambda text: not is_placeholder(text))


@settings(max_examples=15, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=60))
def test_any_value_is_read_back_or_rejected(values: list[str]):
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
def test_value_that_cannot_be_quoted_is_rejected_by_name(value: str):
    with pytest.raises(SettingError, match=r"^SASL_PASSWORD: ") as error:
        quoted("SASL_PASSWORD", value)
    assert "it's" not in str(error.value)


# compose-go 2.16.2, Compose's own library, reads these lines as these values.
PARSED_LINES = {
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
@pytest.mark.parametrize(("text", "values"), PARSED_LINES.items())
def test_lines_are_parsed_as_compose_parses_them(text: str, values: dict[str, str], end: str):
    assert parse(text.replace("\n", end) + end) == values


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_ambiguous_line_is_rejected_by_number_and_name(text: str, message: str):
    with pytest.raises(SettingError, match=rf"^/my/\.env, {message}") as error:
        parse(f"FIRST=1\n{text}\n", "/my/.env")
    assert "hunter2" not in str(error.value)


def test_reference_prefers_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SET_ELSEWHERE", "there")
    assert parse("SET_ELSEWHERE=here\nA=$SET_ELSEWHERE\n")["A"] == "there"


def test_reference_with_a_default_is_not_replaced():
    assert parse("A=x${NOWHERE_SET:-$B}y\n") == {"A": "x${NOWHERE_SET:-$B}y"}


def test_env_example_is_read_alike_by_compose_and_shells():
    """Without the # before settings. A line once had a comment that compose took for the password."""
    text = (ROOT / ".env.example").read_text()
    text = re.sub(r"^# (?=[A-Z][A-Z0-9_]+=)", "", text, flags=re.MULTILINE)
    found = parse(text)
    assert len(found) > 60
    assert [name for name, value in found.items() if "#" in value] == []
    assert by_shell(text, list(found)) == found


def test_whole_assignments_are_removed():
    text = "# kept\nA=1\nexport B='over\n\ntwo' # gone\nC=\"x # y\"\nA=2\nD=4"
    assert without_names(text, ["A", "B"]) == '# kept\nC="x # y"\nD=4'
    assert without_names(text, ["D"]) == text.removesuffix("D=4")
    assert without_names(text, ["over", "E"]) == text
