"""Lines of .env: what is written is read alike by a shell and by docker compose, whose rules `parse` holds."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.deployment.env_file import line, parse, quoted, without
from include.errors import SettingError

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
    script = "set -a; . /dev/stdin; exec python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(["sh", "-c", script], input=text, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return {name: found[name] for name in names}


def test_a_shell_reads_the_same():
    values = {f"NAME_{number}": value for number, value in enumerate(SEEN)}
    text = "".join(line(name, value) for name, value in values.items())
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
            written += line(f"NAME_{number}", value)
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


def test_reading_what_people_write():
    text = "\n".join(
        [
            "# a comment",
            "export A=1",
            "B = two words  # and a comment",
            "C=no#comment",
            'D="x # y" # z',
            "E=",
            "not a line",
            "A=2",
            "F='over",
            "two'",
        ]
    ).replace("\n", "\r\n")
    assert parse(text) == {"A": "2", "B": "two words", "C": "no#comment", "D": "x # y", "E": "", "F": "over\ntwo"}


def test_lines_are_taken_out_whole():
    text = "# kept\nA=1\nexport B='over\n\ntwo' # gone\nC=\"x # y\"\nA=2\nD=4"
    assert without(text, ["A", "B"]) == '# kept\nC="x # y"\nD=4'
    assert without(text, ["D"]) == text.removesuffix("D=4")
    assert without(text, ["over", "E"]) == text
