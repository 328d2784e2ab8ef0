"""Whatever a guest sends is answered, or ends that guest: nothing else happens."""

import asyncio
import json
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from isopod.errors import GuestProtocolError
from isopod.host.connections import Connections, OpenConnections
from isopod.host.digests import Digests
from isopod.host.outside import NoOutside
from isopod.host.tls import TlsContexts, TlsSessions

OPERATION = st.sampled_from([bytes([n]) for n in range(256)] + [b"C", b"N", b"H", b"R", b"W"] * 20)
NUMBER = st.integers(0, 2**32 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
MEMBERS = (
    *("verify_mode", "check_hostname", "options", "verify_flags", "minimum", "maximum"),
    *("ciphers", "alpn", "system", "authorities", "certificate", "password"),
)
DESCRIPTION = st.fixed_dictionaries(dict.fromkeys(MEMBERS, VALUES))


def contexts() -> TlsContexts:
    return TlsContexts(trust="", extra="", key_folder=Path(tempfile.gettempdir()))


@settings(deadline=None)
@given(OPERATION, NUMBER, NUMBER, st.integers(0, 255), NUMBER, st.binary(max_size=200))
def test_tls_calls(operation, number, argument, ended, size, rest):
    sessions = TlsSessions(contexts())
    for frame in (rest, operation + struct.pack("<IIBI", number, argument, ended, size) + rest):
        with suppress(GuestProtocolError):
            assert isinstance(sessions.call(frame), bytes)


@settings(deadline=None)
@given(VALUES | DESCRIPTION)
def test_descriptions_of_tls_contexts(value):
    sessions = TlsSessions(contexts())
    for operation in (b"C", b"N"):
        frame = operation + struct.pack("<IIBI", 1, 0, 0, 0) + json.dumps(value).encode()
        with suppress(GuestProtocolError):
            assert isinstance(sessions.call(frame), bytes)


@settings(deadline=None)
@given(OPERATION | st.sampled_from([b"c", b"s", b"r", b"p", b"d"]), NUMBER, st.binary(max_size=60))
def test_network_calls(operation, number, rest):
    async def main():
        connections = Connections("app", outside=NoOutside(), open_now=OpenConnections())
        for frame in (rest, operation + struct.pack("<II", number, 1) + rest):
            try:
                answer = connections.call(frame)
                if not isinstance(answer, bytes):
                    answer = await asyncio.wait_for(answer, 60)
                assert answer[:1] in (b"\0", b"\1")
            except GuestProtocolError:
                pass
        connections.close()

    asyncio.run(main())


@settings(deadline=None, max_examples=30)
@given(VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_key_derivations(frame):
    async def main():
        digests = Digests()
        try:
            answer = await digests.call(frame, tenant="a", charge=lambda _ns: None)
            assert answer[:1] == b"\1"
        except GuestProtocolError:
            pass
        finally:
            digests.close()

    asyncio.run(main())
