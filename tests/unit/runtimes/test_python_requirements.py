from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import DependencyInvalid
from isopod.runtimes.python.requirements import parse_text, read_folder


def folder(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "app"


def read(tmp_path: Path, text: str) -> list[str]:
    found = read_folder(folder(tmp_path, {"requirements.txt": text}))
    assert found is not None
    return [line.text for line in found.lines]


def test_the_forms_that_people_write_are_read(tmp_path: Path) -> None:
    text = (
        "# what we need\n"
        "Flask>=2,<4  # web\n"
        "requests[socks] == 2.* ; python_version > '3.8'\n"
        "--only-binary=:all:\n-i https://pypi.org/simple/\n"
        "click==8.1.7 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "wheel @ https://example.org/wheel-1-py3-none-any.whl#sha256=00\n"
    )
    # "name @ url" or "name@ url", by the version of packaging.
    assert [one.replace(" @", "@") for one in read(tmp_path, text)] == [
        "Flask<4,>=2",
        'requests[socks]==2.*; python_version > "3.8"',
        "click==8.1.7 --hash=sha256:aa --hash=sha256:bb",
        "wheel@ https://example.org/wheel-1-py3-none-any.whl#sha256=00",
    ]


def test_other_files_of_the_folder_are_included_once(tmp_path: Path) -> None:
    app = folder(
        tmp_path,
        {
            "requirements.txt": "-r requirements/base.txt\n-c constraints.txt\n--pre\n",
            "requirements/base.txt": "flask\n-r more.txt\n-r ../requirements.txt",
            "requirements/more.txt": "click",
            "constraints.txt": "click<9",
        },
    )
    found = read_folder(app)
    assert found is not None
    assert [(line.name, line.at) for line in found.lines] == [
        ("flask", "requirements/base.txt, line 1"),
        ("click", "requirements/more.txt, line 1"),
    ]
    assert [line.text for line in found.constraints] == ["click<9"]
    assert found.prereleases


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "--editable=git+https://example.org/x#egg=x",
        ".",
        "./pkg",
        "../pkg",
        "/etc/pkg",
        "~/pkg",
        "pkg/sub",
        "pkg-1.0-py3-none-any.whl",
        "file:///etc/passwd",
        "x @ file:///etc/passwd",
        "x @ git+https://example.org/x",
        "x @ git+ssh://git@example.org/x",
        "git+https://example.org/x",
        "https://example.org/x.tar.gz",
        "x @ https://example.org/x.tar.gz",
        "x @ http://example.org/x-1-py3-none-any.whl",
        "x @ https://user:secret@example.org/x-1-py3-none-any.whl",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-f ./wheels",
        "--find-links=/",
        "-r ../outside.txt",
        "-r /etc/hostname",
        "-c https://example.org/constraints.txt",
        "-r gone.txt",
        "x --config-settings=a=b",
        "x --global-option=--x",
        "--config-file /etc/passwd",
        "x==",
        "x y",
        "${SECRET}",
        "x==${SECRET}",
    ],
)
def test_what_is_no_package_of_an_index_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "outside.txt").write_text("flask")
    with pytest.raises(DependencyInvalid) as caught:
        read(tmp_path, f"flask\n\n{line}\n")
    assert caught.value.message.startswith("requirements.txt, line 3: ")
    assert caught.value.details == {"file": "requirements.txt", "line": 3}


def test_a_link_out_of_the_folder_is_not_included(tmp_path: Path) -> None:
    app = folder(tmp_path, {"requirements.txt": "-r link.txt"})
    (tmp_path / "outside.txt").write_text("flask")
    (app / "link.txt").symlink_to("../outside.txt")
    with pytest.raises(DependencyInvalid, match="not a file in the app's folder"):
        read_folder(app)


def test_windows_files_are_read(tmp_path: Path) -> None:
    app = folder(tmp_path, {"requirements.txt": ""})
    (app / "requirements.txt").write_bytes("flask\r\nclick\r\n".encode("utf-16"))
    found = read_folder(app)
    assert found is not None
    assert [line.text for line in found.lines] == ["flask", "click"]
    (app / "requirements.txt").write_bytes(b"fl\xffask")
    with pytest.raises(DependencyInvalid, match="not UTF-8"):
        read_folder(app)


def test_the_sources_have_an_order(tmp_path: Path) -> None:
    files = {"pyproject.toml": "[project]\ndependencies = ['click', 'flask>2']\n"}
    found = read_folder(folder(tmp_path, files))
    assert found is not None
    assert (found.source, [line.text for line in found.lines]) == (
        "pyproject.toml",
        ["click", "flask>2"],
    )
    found = read_folder(folder(tmp_path, {"requirements.txt": "six"}))
    assert found is not None
    assert (found.source, [line.text for line in found.lines]) == ("requirements.txt", ["six"])
    assert read_folder(folder(tmp_path, {"uv.lock": ""})) is None
    empty = read_folder(tmp_path)
    assert empty is not None
    assert empty.source == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[project", "cannot be read"),
        ("[project]\ndynamic = ['dependencies']", "dynamic"),
        ("[tool.poetry.dependencies]\nflask = '*'", "Poetry"),
        ("[project]\ndependencies = 'flask'", "list of texts"),
        ("[project]\ndependencies = ['x @ file:///x']", "no pure wheel"),
    ],
)
def test_a_pyproject_that_cannot_be_used_says_why(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DependencyInvalid, match=says):
        read_folder(folder(tmp_path, {"pyproject.toml": text}))


def test_a_pyproject_of_tools_only_asks_for_nothing(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path, {"pyproject.toml": "[tool.ruff]\nline-length = 1"}))
    assert found is not None
    assert found.lines == []


@given(st.text(st.sampled_from("ab-=><.~!@#\\ \n\t[];:/'\"0é+e r c"), max_size=80))
def test_any_text_gives_requirements_or_our_error(text: str) -> None:
    try:
        lines = parse_text(text, "x").lines
    except DependencyInvalid:
        return
    assert not any("\n" in line.text for line in lines)
