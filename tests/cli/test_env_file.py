"""Files of NAME=value lines, as people and other tools write them."""

import pytest

from isopod.cli import env_file
from isopod.errors import UsageError

FILE = """\ufeff# settings
A=1
export B = two words  # a comment
C="a # b \\"c\\" \\n \\$x"   # quoted
D='$HOME \\n'
E=
F=https://x/?a=b#c
PEM="-----BEGIN-----
line = 2
-----END-----"
A=3
"""


def test_what_people_write_is_read_and_nothing_is_expanded(tmp_path):
    path = tmp_path / ".env"
    path.write_text(FILE, encoding="utf-8")
    assert env_file.read(path) == {
        "A": "3",
        "B": "two words",
        "C": 'a # b "c" \n $x',
        "D": "$HOME \\n",
        "E": "",
        "F": "https://x/?a=b#c",
        "PEM": "-----BEGIN-----\nline = 2\n-----END-----",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A=1\nhunter2 is it", "line 2: not NAME=value"),
        ("1A=hunter2", "line 1: not NAME=value"),
        ("A='hunter2", "line 1: the value of 'A' has no end quote"),
        ('A="hunter2" more', "line 1: text after the value of 'A'"),
    ],
)
def test_a_line_that_is_none_is_named_by_its_number_alone(text, why):
    with pytest.raises(UsageError) as refused:
        env_file.parse(text, ".env")
    assert why in refused.value.message and "hunter2" not in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path):
    (tmp_path / "binary").write_bytes(b"A=\xff\xfe")
    for name, why in (("nothing", "No such file"), ("binary", "no UTF-8 text")):
        with pytest.raises(UsageError, match=why):
            env_file.read(tmp_path / name)


def test_only_line_ends_end_lines_and_what_is_quoted_is_kept_as_it_is():
    text = "A=\"x\x85y\u2028z\x0c1  \r\n2\t\"\r\nB='\x1c'  # said\r\nC=\x0b\u2029D=1 \r\n"
    found = env_file.parse(text, "f")
    assert found["A"] == "x\x85y\u2028z\x0c1  \n2\t"
    assert found["B"] == "\x1c"
    assert "D" not in found
