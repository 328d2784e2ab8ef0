"""Gems for tests: files as RubyGems builds them, lock files, and a registry on this machine."""

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def gem(
    name: str,
    version: str = "1.0",
    files: Mapping[str, str] | None = None,
    *,
    extensions: Sequence[str] = (),
    platform: str = "ruby",
) -> bytes:
    listed = "".join(f"\n- {one}" for one in extensions) or " []"
    metadata = (
        "--- !ruby/object:Gem::Specification\n"
        f"name: {name}\nversion: !ruby/object:Gem::Version\n  version: {version}\n"
        f"platform: {platform}\nexecutables: []\nextensions:{listed}\n"
        "require_paths:\n- lib\nspecification_version: 4\n"
    )
    data = tar_of({path: text.encode() for path, text in (files or {}).items()})
    return tar_of(
        {
            "metadata.gz": gzip.compress(metadata.encode(), mtime=0),
            "data.tar.gz": gzip.compress(data, mtime=0),
        }
    )


def lock(
    gems: Mapping[str, bytes | None],
    *,
    needs: Mapping[str, Sequence[str]] | None = None,
    direct: Sequence[str] | None = None,
    remote: str = "https://rubygems.org/",
) -> str:
    """Of {"name (version)": its file, None for no checksum}."""
    lines = ["GEM", f"  remote: {remote}", "  specs:"]
    for spec in gems:
        lines.append(f"    {spec}")
        lines += [f"      {need} (>= 0)" for need in (needs or {}).get(spec.split()[0], ())]
    names = direct if direct is not None else [spec.split()[0] for spec in gems]
    lines += ["", "PLATFORMS", "  ruby", "", "DEPENDENCIES", *(f"  {name}" for name in names), ""]
    sums = {spec: hashlib.sha256(data).hexdigest() for spec, data in gems.items() if data}
    lines += ["CHECKSUMS", *(f"  {spec} sha256={text}" for spec, text in sums.items())]
    return "\n".join([*lines, "", "BUNDLED WITH", "   4.0.3", ""])


@dataclass
class Registry:
    """Serves `files` by path; `asked` are the paths."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, version: str, data: bytes, checksum: str | None = None) -> None:
        self.files[f"/gems/{name}-{version}.gem"] = data
        said = checksum or hashlib.sha256(data).hexdigest()
        self.files[f"/info/{name}"] = f"---\n{version} |checksum:{said},ruby:>= 2\n".encode()


@contextmanager
def registry() -> Iterator[Registry]:
    made = Registry()

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            data = made.files.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("content-length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        made.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
