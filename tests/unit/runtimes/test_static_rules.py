"""`_redirects`, `_headers`, ranges and negotiation, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopod.errors import ManifestInvalid
from isopod.runtimes.static import header_rules, media, negotiation, ranges, redirects
from isopod.runtimes.static.patterns import Pattern


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("/news/*", "/news/2026/a b", {"splat": "2026/a b"}),
        ("/news/*", "/news/", {"splat": ""}),
        ("/news/*", "/news", None),
        ("/news/*", "/newsy/x", None),
        ("/*", "/", {"splat": ""}),
        ("/blog/:year/:slug", "/blog/2026/x", {"year": "2026", "slug": "x"}),
        ("/blog/:year/:slug", "/blog/2026/", None),
        ("/blog/:year/:slug", "/blog/2026/x/y", None),
        ("/a", "/a", {}),
        ("/a", "/a/", None),
    ],
)
def test_a_pattern_matches_whole_segments(pattern, path, values):
    assert Pattern.parse(pattern).match(path) == values


@pytest.mark.parametrize(
    ("line", "to", "status", "force"),
    [
        ("/a /b", "/b", 302, False),
        ("/a /b 301", "/b", 301, False),
        ("/a\t/b   308!  # for good", "/b", 308, True),
        ("/* /index.html 200", "/index.html", 200, False),
        ("/old/* https://new.example:8443/x/:splat 301", "https://new.example:8443/x/:splat", 301,
         False),
        ("/gone /404.html 404", "/404.html", 404, False),
    ],
)  # fmt: skip
def test_a_redirect_is_read(line, to, status, force):
    (rule,) = redirects.parse(f"# first\n\n{line}\n")
    assert (rule.to, rule.status, rule.force) == (to, status, force)
    assert redirects.Rule.from_json(rule.to_json()) == rule


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/a", "needs where it leads"),
        ("a /b", "must be a path that starts with '/'"),
        ("https://x.example/a /b", "must be a path that starts with '/'"),
        ("/a /b 299", "is not one of"),
        ("/a /b ³01", "is not one of"),
        ("/a /b 301 Country=de", "conditions"),
        ("/a id=:id /b", "conditions"),
        ("/a https://api.example/x 200", "proxy"),
        ("/a ftp://x/y 301", "http or https"),
        ("/a /b/:id", "does not have"),
        ("/a https://:splat/x 301", "is no URL"),
        ("/*/b /c", "whole last segment"),
        ("/:a/:a /c", "twice"),
        ("/a /b?x=1 200", "must be a path alone"),
        ("/a" * 2000 + " /b", "longer than"),
    ],
)
def test_a_redirect_that_is_not_known_is_refused_where_it_stands(line, why):
    with pytest.raises(ManifestInvalid, match="_redirects, line 3: ") as refused:
        redirects.parse(f"/x /y\n# comment\n{line}\n")
    assert why in refused.value.message
    assert refused.value.details == {"file": "_redirects", "line": 3}


def test_too_many_rules_with_placeholders_are_refused():
    text = "".join(f"/p{number}/* /x/:splat\n" for number in range(201))
    with pytest.raises(ManifestInvalid, match="line 201"):
        redirects.parse(text)


@given(st.text())
def test_a_redirect_to_a_path_never_leaves_the_site(rest):
    (rule,) = redirects.parse("/* /:splat 301")
    target = rule.target(rule.pattern.match("/" + rest))
    assert target.startswith("/") and not target.startswith("//") and "\\" not in target
    assert target.isascii() and not any(letter <= " " for letter in target)


def test_headers_are_read_and_add_up():
    rules = header_rules.parse(
        "/*\n  X-Frame-Options: DENY\n  Vary: Cookie\n\n# fonts\n/fonts/*\n"
        "\tCache-Control: public, max-age=600\n  x-frame-options: SAMEORIGIN\n"
        "  Set-Cookie: a=1\n  Set-Cookie: b=2\n"
    )
    rules = [header_rules.HeaderRule.from_json(rule.to_json()) for rule in rules]
    ours = [(b"cache-control", b"no-cache"), (b"vary", b"Accept-Encoding")]
    assert header_rules.apply(ours, rules, "/fonts/a.woff2") == [
        (b"vary", b"Accept-Encoding"),
        (b"x-frame-options", b"DENY, SAMEORIGIN"),
        (b"vary", b"Cookie"),
        (b"cache-control", b"public, max-age=600"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    assert header_rules.apply(ours, rules[1:], "/x") == ours


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("  Content-Length: 3", "follows from the file"),
        ("  Transfer-Encoding: chunked", "follows from the file"),
        ("  X-Request-Id: x", "follows from the file"),
        ("  ! X-Frame-Options", "not supported"),
        ("  no colon", "Name: value"),
        ("  X-A: grüß", "printable ASCII"),
        ("  X-A: a\x00b", "printable ASCII"),
        ("https://x.example/*", "starts with '/'"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_where_it_stands(line, why):
    with pytest.raises(ManifestInvalid, match="_headers, line 2: ") as refused:
        header_rules.parse(f"/*\n{line}\n")
    assert why in refused.value.message


def test_a_header_without_a_path_is_refused():
    with pytest.raises(ManifestInvalid, match="_headers, line 1: a header needs a path"):
        header_rules.parse("  X-A: b\n")


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        (b"bytes=0-0", [(0, 1)]),
        (b"bytes=5-", [(5, 10)]),
        (b"bytes=-3", [(7, 10)]),
        (b"bytes=-30", [(0, 10)]),
        (b"bytes=2-99", [(2, 10)]),
        (b"Bytes = 0-1 , 4-5", [(0, 2), (4, 6)]),
        (b"bytes=4-5,0-1", [(4, 6), (0, 2)]),
        (b"bytes=0-4,3-6", [(0, 7)]),
        (b"bytes=0-1,4-5,2-3", [(0, 6)]),
        (b"bytes=0-1,20-30", [(0, 2)]),
        (b"bytes=10-", []),
        (b"bytes=-0", []),
        (b"bytes=20-30", []),
        (b"bytes=3-2", None),
        (b"bytes=-", None),
        (b"bytes=a-b", None),
        (b"bytes=", None),
        (b"items=0-1", None),
        (b"bytes", None),
        (b"bytes=0-" + b"9" * 30, None),
        (b"bytes=" + b"0-0," * 17, None),
    ],
)
def test_ranges_of_ten_bytes(header, spans):
    assert ranges.parse(header, 10) == spans


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=16),
       st.integers(0, 50))  # fmt: skip
def test_ranges_are_inside_and_never_overlap(asked, size):
    header = b"bytes=" + ",".join(f"{a}-{max(a, b)}" for a, b in asked).encode()
    spans = ranges.parse(header, size)
    covered = [number for first, end in spans for number in range(first, end)]
    assert len(covered) == len(set(covered)) <= size
    wanted = {n for a, b in asked for n in range(a, max(a, b) + 1) if n < size}
    assert set(covered) == wanted


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (b"", ""),
        (b"gzip, deflate, br, zstd", "br"),
        (b"gzip", "gzip"),
        (b"x-gzip", "gzip"),
        (b"GZIP;Q=1", "gzip"),
        (b"gzip;q=1, br;q=0.5", "gzip"),
        (b"br;q=0", ""),
        (b"*", "br"),
        (b"*, br;q=0", "zstd"),
        (b"*;q=0", ""),
        (b"identity", ""),
        (b"identity;q=1, br;q=0.5", ""),
        (b"identity;q=0.5, br;q=0.8", "br"),
        (b"identity;q=0", ""),
        (b"br;q=2", ""),
        (b"br;q=abc, gzip;q=0.001", "gzip"),
        (b"deflate", ""),
        (b";;,,;q=1", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_the_encoding_that_a_client_likes_best(accepted, chosen):
    assert negotiation.choose(accepted, ("br", "zstd", "gzip")) == chosen


@given(st.binary(max_size=60))
def test_negotiation_takes_any_bytes(accepted):
    assert negotiation.choose(accepted, ("br", "gzip")) in {"", "br", "gzip"}


@pytest.mark.parametrize(
    ("path", "hashed"),
    [
        ("main.3f2a1b9c.js", True),
        ("static/js/main.3f2a1b9c.chunk.js", True),
        ("assets/index-BfF3a2x1.css", True),
        ("_next/static/chunks/main.js", True),
        ("_astro/x.css", True),
        ("index.html", False),
        ("jquery-3.7.1.min.js", False),
        ("photo-20240101.jpg", False),
        ("IMG-20240101WA0001.jpg", False),
        ("bootstrap-reboot.css", False),
        ("my-someComponent.js", False),
        ("3f2a1b9c.js", False),
        ("icon-1024x1024.png", False),
        (".3f2a1b9c.js", False),
    ],
)
def test_names_that_hold_a_hash(path, hashed):
    assert media.is_hashed(path) is hashed
