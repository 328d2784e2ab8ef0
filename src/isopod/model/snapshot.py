"""What a deploy made of an app's memory: an image to start from, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from isopod.model.ids import Digest

# sound: booted and warmed. unwarmed: booted only, because the warm-up left something that must not
# be shared. plain: no image, each start boots the app. unneeded: it has no starts.
Verdict = Literal["sound", "unwarmed", "plain", "unneeded"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be shared by instances, and the code that made it."""

    kind: str  # "open file", "sqlite connection", "setting", "hook", "failed"...
    what: str
    place: str  # "file:line", or ""

    def text(self) -> str:
        return f"{self.kind}: {self.what}" + (f" ({self.place})" if self.place else "")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`image` is the blob's digest, "" when the verdict is plain or unneeded. Sizes in bytes."""

    verdict: Verdict
    image: Digest
    runtime: Digest  # what the image belongs to: module, engine, guest-side files
    size: int  # of the guest's memory
    own_bytes: int  # pages that differ from the runtime's base image
    blob_bytes: int  # compressed
    private: bool  # holds values of this app's settings: never shared, made anew when they change
    why: str  # one sentence for people; "" when there is nothing to say
    findings: tuple[Finding, ...] = ()
    # Names of the app's secrets when it was taken. An image holds no value of theirs, but an app
    # may have seen at its start which there were: with others it is taken anew.
    secrets: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        # Not `asdict` of it all: it copies deeply, and a node that starts writes ten thousand.
        own = {name: getattr(self, name) for name in self.__slots__}
        return {**own, "findings": tuple(asdict(one) for one in self.findings)}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Snapshot:
        return Snapshot(
            **{
                **body,
                "image": Digest(body["image"]),
                "runtime": Digest(body["runtime"]),
                "findings": tuple(Finding(**finding) for finding in body["findings"]),
                "secrets": tuple(str(name) for name in body.get("secrets", ())),
            }
        )


def plain(why: str, findings: tuple[Finding, ...] = ()) -> Snapshot:
    """No image, and why."""
    return _without_image("plain", why, findings)


def unneeded(why: str) -> Snapshot:
    """No instance ever starts, and why."""
    return _without_image("unneeded", why, ())


def _without_image(verdict: Verdict, why: str, findings: tuple[Finding, ...]) -> Snapshot:
    return Snapshot(
        verdict=verdict,
        image=Digest(""),
        runtime=Digest(""),
        size=0,
        own_bytes=0,
        blob_bytes=0,
        private=False,
        why=why,
        findings=findings,
    )
