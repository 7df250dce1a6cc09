"""Files of verdicts as spreadsheets and people write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from include.errors import ConfirmationError
from include.report import csv_attachment
from include.report.fraud import Fraud
from include.reviews.payment_source import PaymentSource
from include.reviews.verdict_file import Verdict, VerdictFile, possible_trans_nums, read

HEADER = "source,row,fraud_probability,cc_num,merchant,trans_num,verdict"
LINES = (
    HEADER,
    '1/0/1,0,0.9,455612******9012,"fraud_Müller, Söhne",a1,fraud',
    "1/0/2,0,0.9,455612******9012,Café,a2,",
    "1/0/3,0,0.9,455612******9012,Café,a3,Genuine",
)
GOOD = VerdictFile(
    [Verdict(2, ("a1",), True, PaymentSource("1", 0, 1, 0)), Verdict(4, ("a3",), False, PaymentSource("1", 0, 3, 0))],
    [],
    1,
)


def given(tmp_path: Path, content: bytes | str) -> Path:
    file = tmp_path / "verdicts.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def semicolons(text: str) -> str:
    return text.replace(",", ";").replace("Müller; ", "Müller, ")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_file_is_read_in_every_encoding_and_separator_of_spreadsheets(
    tmp_path: Path, encoding: str, separator: str, ending: str
) -> None:
    text = ending.join(LINES).replace(",", separator).replace(f"Müller{separator} ", "Müller, ") + ending
    assert read(given(tmp_path, text.encode(encoding))) == GOOD


def test_separator_line_of_excel_is_read(tmp_path: Path) -> None:
    file = read(given(tmp_path, "sep=;\r\n" + semicolons("\r\n".join(LINES))))
    assert [one.line for one in file.verdicts] == [3, 5]
    assert not file.bad


def test_missing_and_additional_empty_cells_are_accepted(tmp_path: Path) -> None:
    file = read(given(tmp_path, "trans_num,verdict\na1\n\na2,fraud,,\n , \n"))
    assert file == VerdictFile([Verdict(4, ("a2",), True)], [], 1)


@pytest.mark.parametrize("word", ["fraud", "Fraud", "TRUE", " yes ", "y", "1", "1.0", "WAHR", "vrai", "'fraud"])
def test_words_for_fraud_are_recognized(tmp_path: Path, word: str) -> None:
    assert read(given(tmp_path, f"trans_num,verdict\na,{word}\n")).verdicts == [Verdict(2, ("a",), True)]


@pytest.mark.parametrize("word", ["genuine", "Legit", "False", "no", "N", "0", "0.0", "not  fraud", "FALSCH", "FAUX"])
def test_words_for_genuine_are_recognized(tmp_path: Path, word: str) -> None:
    assert read(given(tmp_path, f"Trans_Num;Verdict\na;{word}\n")).verdicts == [Verdict(2, ("a",), False)]


def test_bad_lines_are_reported_by_number_and_not_quoted(tmp_path: Path) -> None:
    content = 'trans_num,note,verdict\na,,4556123456789012\n,,fraud\nb,"x"y,fraud\nc,,fraud,4556123456789012\n'
    content += f'{"x" * 1001},,fraud\nd,"two\nlines",no\ne,,yes\nf,"never closed,fraud\ng,,fraud\n'
    file = read(given(tmp_path, content))
    unclosed = "a quotation mark is not closed, and lines 10 to 11 are not read"
    assert file.verdicts == [Verdict(7, ("d",), False), Verdict(9, ("e",), True)]
    assert [(one.line, one.why) for one in file.bad] == [
        (2, "has an unknown verdict: give fraud, genuine, or nothing"),
        (3, "has no trans_num"),
        (4, "is not valid CSV: ',' expected after '\"'"),
        (5, "has 4 cells, but the header has 3"),
        (6, "has a trans_num of more than 1,000 characters"),
        (10, f"is not valid CSV: unexpected end of data: {unclosed}"),
    ]


def test_lines_after_an_unclosed_quotation_mark_are_reported(tmp_path: Path) -> None:
    content = 'trans_num,note,verdict\na,"never closed,fraud\nb,,fraud\nc,"x",fraud\nd,,fraud\n'
    file = read(given(tmp_path, content))
    assert file.verdicts == [Verdict(5, ("d",), True)]
    (bad,) = file.bad
    assert bad.line == 2
    assert bad.why.endswith(": a quotation mark is not closed, and lines 2 to 4 are not read")
    sep = read(given(tmp_path, f"sep=,\n{content}"))
    assert (sep.bad[0].line, sep.bad[0].why[-29:]) == (3, "and lines 3 to 5 are not read")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b",,,\n,,\n", "has no column trans_num"),
        (b'"never closed\n', "is not a CSV file: its first line"),
        (b"a,b\n1,2\n", "has no column trans_num: its first line must name trans_num and verdict"),
        (b"trans_num,b\n1,2\n", "has no column verdict"),
        (b"trans_num,verdict,Verdict,verdict\n", "has 2 columns verdict: its first line"),
        (b"PK\x03\x04\x14\0", "is a spreadsheet or an archive: save it as CSV"),
        (b"\x7fELF\0\0\1\2", "is not a CSV file: it holds bytes"),
        (codecs.BOM_UTF16_LE + b"\0\xd8x", "is not a CSV file: it holds bytes"),
    ],
)
def test_unreadable_file_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "verdicts.csv" if content is None else given(tmp_path, content)
    with pytest.raises(ConfirmationError, match=message) as told:
        read(file)
    assert str(file) in str(told.value)


@pytest.mark.parametrize("name", ["=1+1", "-5", "@x", "\u2212x", " =x", "a;=b", "'a=b", "plain", "it's=x", "\tx"])
def test_apostrophe_that_a_report_added_is_removed(name: str) -> None:
    assert name in possible_trans_nums(csv_attachment.cell(name))


def test_apostrophe_of_the_trans_num_itself_stays() -> None:
    assert possible_trans_nums("'abc") == ("'abc",)
    assert possible_trans_nums("'=a") == ("'=a", "=a")


def test_attachment_of_a_report_can_be_filled_in(tmp_path: Path) -> None:
    frauds = [
        Fraud(
            "topic_1/0/7", row, 0.9, b'{"cc_num":4556123456789012,"merchant":"a,\\"b\\"\\nc","trans_num":"%b"}' % name
        )
        for row, name in enumerate((b"=7", b"a2"))
    ]
    report, _ = csv_attachment.write(frauds, mask=True, max_bytes=10_000)
    lines = report.decode("utf-8-sig").split("\r\n")
    filled = [lines[0] + ",verdict", lines[1] + ",fraud", lines[2] + ",genuine"]
    file = read(given(tmp_path, "\r\n".join(filled)))
    assert file.verdicts == [
        Verdict(2, ("'=7", "=7"), True, PaymentSource("topic_1", 0, 7, 0)),
        Verdict(4, ("a2",), False, PaymentSource("topic_1", 0, 7, 1)),
    ]


@pytest.mark.parametrize(
    ("cells", "source"),
    [
        ("topic_1/0/7,1", PaymentSource("topic_1", 0, 7, 1)),
        ("'-topic.1/12/7,0.0", PaymentSource("-topic.1", 12, 7, 0)),
        ("topic_1/0/7,", PaymentSource("topic_1", 0, 7)),
        (",1", None),
        ("chargeback,1", None),
        ("topic_1/9999999999/7,0", None),
        ("topic_1/0/9999999999999999999,0", None),
        ("2026/01/02,0", PaymentSource("2026", 1, 2, 0)),
    ],
)
def test_line_may_name_the_payments_source(tmp_path: Path, cells: str, source: PaymentSource | None) -> None:
    file = read(given(tmp_path, f"source,row,trans_num,verdict,source\n{cells},a,fraud,the bank\n"))
    assert file.verdicts == [Verdict(2, ("a",), True, source)]


def test_file_without_source_columns_has_no_sources(tmp_path: Path) -> None:
    assert read(given(tmp_path, "trans_num,verdict\na,fraud\n")).verdicts == [Verdict(2, ("a",), True)]
