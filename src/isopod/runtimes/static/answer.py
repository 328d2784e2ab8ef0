"""What a request to a site is answered with: head, and which bytes of which file. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from isopod.model.ids import Digest
from isopod.runtimes.direct import DirectRequest
from isopod.runtimes.static import conditions, header_rules, negotiation, ranges
from isopod.runtimes.static.index import Form, SiteFile
from isopod.runtimes.static.kept import Kept
from isopod.runtimes.static.site import Found, Moved, Site, decode

Headers = list[tuple[bytes, bytes]]
_METHODS = b"GET, HEAD, OPTIONS"
_FOR_EVER = b"public, max-age=31536000, immutable"
_ASK_AGAIN = b"public, max-age=0, must-revalidate"
_LONGEST = 300  # path and encodings of what is kept
_HEAD_BYTES, _HEADER_BYTES = 1000, 120  # of memory, beside names and values
# A request without these gets the whole file.
_CONDITIONS = frozenset(
    {
        b"range",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
    }
)


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of a form of a file: from `first` to before `end`."""

    file: SiteFile
    form: Form
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Planned:
    """`parts` follow each other; `size` is what they are long. HEAD has a size and no parts."""

    status: int
    headers: Headers
    parts: tuple[Slice | bytes, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Whole:
    """The answers that are the same for every request: a form of a file. `head` has no length."""

    file: SiteFile
    form: Form
    head: Headers
    get: Planned


# Of all sites of a worker, in bytes: a visitor may ask a site with a fallback for any path, and
# write what it accepts in any way.
KeptHeads = Kept[tuple[Digest, str, bytes], Whole]


@dataclass(frozen=True, slots=True)
class Heads:
    """What a site's whole files are answered with, by the path and the encodings of the request:
    neither its other headers nor its query matter to them."""

    kept: KeptHeads
    tenant: str
    digest: Digest

    def known(self, path: str, accepted: bytes) -> Whole | None:
        return self.kept.get(self.tenant, (self.digest, path, accepted))

    def keep(self, path: str, accepted: bytes, whole: Whole) -> None:
        if (said := len(path) + len(accepted)) <= _LONGEST:
            text = sum(len(name) + len(value) + _HEADER_BYTES for name, value in whole.head)
            size = _HEAD_BYTES + 4 * said + text
            self.kept.put(self.tenant, (self.digest, path, accepted), whole, size)


def plan(site: Site, heads: Heads, request: DirectRequest) -> Planned | None:
    """None: there is nothing at that path, and the site has no page for that. Raises BadRequest."""
    if request.method not in ("GET", "HEAD"):
        allow = [(b"allow", _METHODS), (b"content-length", b"0")]
        return Planned(204 if request.method == "OPTIONS" else 405, allow)
    accepted, conditional = b"", False
    for name, value in request.headers:
        if name == b"accept-encoding":
            accepted = accepted + b"," + value if accepted else value
        elif name in _CONDITIONS:
            conditional = True
    whole = heads.known(request.path, accepted)
    if whole is None:
        path = decode(request.path)
        target = site.resolve(path, request.query)
        if target is None:
            return None
        if isinstance(target, Moved):
            return _redirect(site, path, target)
        whole = _whole(site, path, target, _form(target.file, accepted))
        heads.keep(request.path, accepted, whole)
    planned = whole.get
    if conditional and planned.status == 200:
        planned = _conditional(site, whole, dict(request.headers)) or planned
    return planned if request.method == "GET" else _without_body(planned)


def _form(file: SiteFile, accepted: bytes) -> Form:
    chosen = negotiation.choose(accepted, file.encodings) if accepted else ""
    return file.form(chosen) if chosen else file.plain


def _without_body(planned: Planned) -> Planned:
    return Planned(planned.status, planned.headers, (), planned.size)


def _conditional(site: Site, whole: Whole, given: Mapping[bytes, bytes]) -> Planned | None:
    """None: the whole file, as if nothing had been asked."""
    file, form, head = whole.file, whole.form, whole.head
    modified = site.index.built_at
    verdict = conditions.check(given, etag=form.etag, modified=modified)
    if verdict == "failed":
        return Planned(412, [(b"content-length", b"0")])
    if verdict == "not_modified":
        # What a cache updates (RFC 9110, section 15.4.5), not what describes the body.
        kept = [one for one in head if one[0] not in (b"content-type", b"content-encoding")]
        return Planned(304, kept)
    asked = given.get(b"range")
    if asked is None or not conditions.range_holds(
        given.get(b"if-range"), etag=form.etag, modified=modified
    ):
        return None
    spans = ranges.parse(asked, form.size)
    if spans is None:
        return None
    if not spans:
        beyond = [
            (b"content-range", f"bytes */{form.size}".encode()),
            (b"content-length", b"0"),
        ]
        return Planned(416, beyond)
    if len(spans) == 1:
        first, end = spans[0]
        headers = [
            *head,
            (b"content-range", _content_range(first, end, form.size)),
            (b"content-length", str(end - first).encode()),
        ]
        return Planned(206, headers, (Slice(file, form, first, end),), end - first)
    return _multipart(file, form, head, spans)


def _multipart(file: SiteFile, form: Form, head: Headers, spans: list[ranges.Span]) -> Planned:
    """RFC 9110, section 14.6."""
    boundary = secrets.token_hex(16).encode()
    kind = next((value for name, value in head if name == b"content-type"), b"")
    parts: list[Slice | bytes] = []
    for first, end in spans:
        lead = b"\r\n--" if parts else b"--"
        about = b"\r\ncontent-type: " + kind + b"\r\ncontent-range: "
        about += _content_range(first, end, form.size)
        parts += [lead + boundary + about + b"\r\n\r\n", Slice(file, form, first, end)]
    parts.append(b"\r\n--" + boundary + b"--\r\n")
    size = sum(len(one) if isinstance(one, bytes) else one.end - one.first for one in parts)
    headers = [
        *(one for one in head if one[0] != b"content-type"),
        (b"content-type", b"multipart/byteranges; boundary=" + boundary),
        (b"content-length", str(size).encode()),
    ]
    return Planned(206, headers, tuple(parts), size)


def _content_range(first: int, end: int, size: int) -> bytes:
    return f"bytes {first}-{end - 1}/{size}".encode()


def _redirect(site: Site, path: str, moved: Moved) -> Planned:
    headers = header_rules.apply(
        [(b"x-content-type-options", b"nosniff")], site.index.headers, path
    )
    headers = [one for one in headers if one[0] != b"content-type"]
    location = (b"location", moved.location.encode("latin-1", "replace"))
    return Planned(moved.status, [*headers, location, (b"content-length", b"0")])


def _whole(site: Site, path: str, found: Found, form: Form) -> Whole:
    head = _head(site, path, found, form)
    headers = [*head, (b"content-length", str(form.size).encode())]
    parts = (Slice(found.file, form, 0, form.size),)
    return Whole(found.file, form, head, Planned(found.status, headers, parts, form.size))


def _head(site: Site, path: str, found: Found, form: Form) -> Headers:
    file = found.file
    headers: Headers = [
        (b"content-type", file.type.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    if found.status == 200:
        headers += [
            (b"etag", form.etag.encode()),
            (b"last-modified", conditions.date(site.index.built_at).encode()),
            (b"accept-ranges", b"bytes"),
        ]
    # By the file, not the path: a page that answers for every path has no hash in its name.
    forever = file.immutable and found.status == 200
    headers.append((b"cache-control", _FOR_EVER if forever else _ASK_AGAIN))
    if len(file.forms) > 1:
        headers.append((b"vary", b"Accept-Encoding"))
    if form.encoding:
        headers.append((b"content-encoding", form.encoding.encode()))
    return header_rules.apply(headers, site.index.headers, path)
