"""RADIUS accounting packets that others sent or published, and requests of our own making.

VECTORS: each names its origin. Persons' data in them was masked and the authenticator computed anew. `response` is
the Accounting-Response without attributes that the secret gives (RFC 2866 §3).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from gatewayd.model import parse_address

SECRET = b"testing123"


@dataclass(frozen=True)
class Vector:
    """`secret` None: it was not published."""

    id: str
    origin: str
    secret: bytes | None
    request: bytes
    response: bytes | None


VECTORS = (
    Vector(
        "dapphp-start",
        "dapphp/radius, its tests",
        b"xyzzy5461",
        bytes.fromhex(
            "040000505ef3e51b37c8fea5ecac7f1fb05a5adc3706693225ba2806000000012c0c53455353494f4e5f494406060000"
            "000201066e656d6f04060a32011950127c0d915b80767f18e5e2ff16dec138ae"
        ),
        bytes.fromhex("05000014635cb5c45a966b78c419ae8e109e557e"),
    ),
    Vector(
        "dapphp-interim",
        "dapphp/radius, its tests",
        b"xyzzy5461",
        bytes.fromhex(
            "0400006e6bb25cb08253fc2c8555cd6b318bdc783706693225ba2806000000032c0c53455353494f4e5f494406060000"
            "000201066e656d6f04060a3201192e060000012c2a06000025262b060000125c2f060000005630060000002f5012b1f2"
            "a571c4576972731cc537f683e0a5"
        ),
        bytes.fromhex("0500001437d293f07309e58754c78955057e3592"),
    ),
    Vector(
        "dapphp-stop",
        "dapphp/radius, its tests",
        b"xyzzy5461",
        bytes.fromhex(
            "0400006e6ba0589b1c1d5a430aeb88e2d8c040573706693225ba2806000000022c0c53455353494f4e5f494406060000"
            "000201066e656d6f04060a3201192e060000020b2a0600002ec02b06000470c02f06000000bb3006000011c350129ef6"
            "ddca319a8ae00541d4e151495338"
        ),
        bytes.fromhex("050000147df4e4cccf7eff592be6a87f56be2939"),
    ),
    Vector(
        "pyrad-realistic-interim",
        "pyradius/pyrad, test_packet.py testRealisticUnknownAttributes (BSD-3-Clause)",
        None,
        bytes.fromhex(
            "048e00c4b2f87adbacfd396c9d493f458c25e9f5011275736572406578616d706c652e636f6d04060102030406060000"
            "00020706000000070806010203042806000000032906000000002a064cf0746a2b06d3a9806b2c113930646264363561"
            "313862306136632d06000000012e06000bbddc2f060070f955300600a6c02a3306000000013406000000003506000000"
            "0237065ca289d53d06000000051a17000002520111554e4b4e4f574e5f50524f44554354e00a32345010002296c9e406"
            "fe99d050"
        ),
        None,
    ),
    Vector(
        "pyrad-empty",
        "pyradius/pyrad, test_packet.py AcctPacketTests.testRequestPacket (BSD-3-Clause)",
        b"secret",
        bytes.fromhex("0400001495df90cc626efb15472113eafa3e360f"),
        bytes.fromhex("05000014d7c1b740f32e00d40380a1c53cb0f8a4"),
    ),
    Vector(
        "mikrotik-radsec-start",
        "vzakharchenko/keycloak-radius-plugin, RadSecCodecTest: a MikroTik router",
        b"radsec",
        bytes.fromhex(
            "04c00080d879c6914715b9d3037c3296bba1e81a060600000001011b6d61736b65642e73756273637269626572406578"
            "616d706c651f113139322e3130302e3230302e3230382806000000012c0a3834303030303538200d4d61696e20526f75"
            "7465722906000000001a1100003a8c090b536d617274486f6d650406d992fb75"
        ),
        bytes.fromhex("05c0001452626ec4b863671e46d1174ca19086aa"),
    ),
    Vector(
        "nokia-mag-fwa-start",
        "hatakkey/MAG-integrated: debug log of a Nokia 7750 SR, 2025-04-13",
        b"testing123",
        bytes.fromhex(
            "044201ce8616701077b9de32851b4c1ae4d2c3ec2806000000010406c000020b01113230363031303030303030303030"
            "310806b40000010906ffffffff190775736572311e0a696e7465726e657420064d4147322c1841424445314230303030"
            "303031423637464243304531321841424445314230303030303031443637464243304531370667fbc0e13d0600000005"
            "5740475450207274722d33236c69702d35302e35302e35302e31237269702d31302e32302e312e32236c746569642d31"
            "3331303732302372746569642d3438341a290000197f0b113230363031303030303030303030310c097375622d667761"
            "0d09736c612d667761f10b1a0000197f2f5341501a190000197f1b1330303a30333a30303a31343a30303a3035290600"
            "0000002d06000000011a29000028af141233353334393030363938373333313533011132303630313030303030303030"
            "30311a230000197f921d696e7465726e65742e6d6e633030312e6d63633230362e677072731a15000028af160f8202f6"
            "10000102f61000000101f1441a0000197f387274722d33236269642d35236c69702d35302e35302e35302e3123726970"
            "2d302e302e302e30236c746569642d313331303732352372746569642d30"
        ),
        bytes.fromhex("05420014e0fb50a0948f5a368f1ca78582008fb1"),
    ),
    Vector(
        "h3c-start",
        "H3C switch debugging manual, debugging radius packet",
        b"h3c",
        bytes.fromhex(
            "043c006c21aa184e38c860f112769726e204d8280106726261630806c0a800112c283030303030303033323031312d30"
            "312d30333a30323a33333a31382d303030303030303130310f06000000002d06000000010406c0a80010280600000001"
            "29060000000037064d21356e"
        ),
        bytes.fromhex("053c00145f8f2fe72186a7db52b33909869280b0"),
    ),
)


NOKIA_INTERIM = bytes.fromhex(
    "04e200df97a3d0cbf5fccca84bbfc296a1089eda2806000000030406c000020a011330323a30303a30313a30303a3030"
    "3a30310806b40000020906ffffff0061140040200520052005005200000000000000007b140038200220022002510000"
    "00000000000000600affffffffff000001190869706f652d3120064d4147312c18313831303037303030303031433236"
    "374642443237452e0600000000321831383130303730303030303143443637464244323745370667fbd27e3d06000000"
    "0f5712312f312f63322f313a3230312e3130302906000000002d0600000001"
)
"""An interim update of a Nokia 7750 SR with all kinds of addresses: attributes of its call trace of 2025-04-13
(hatakkey/MAG-integrated), encoded with FreeRADIUS radclient 3.2.1 under SECRET."""


def attribute(type_: int, value: bytes) -> bytes:
    """One attribute, or TLV, or vendor's attribute."""
    return bytes([type_, len(value) + 2]) + value


def integer(type_: int, number: int) -> bytes:
    return attribute(type_, number.to_bytes(4, "big"))


def text(type_: int, value: str) -> bytes:
    return attribute(type_, value.encode())


def vendor(number: int, *attributes: bytes) -> bytes:
    """RFC 2865 §5.26."""
    return attribute(26, number.to_bytes(4, "big") + b"".join(attributes))


def extended(type_: int, value: bytes) -> bytes:
    """RFC 6929 §2.1: an attribute of 241."""
    return attribute(241, bytes([type_]) + value)


def framed_ipv4(address: str) -> bytes:
    return attribute(8, parse_address(address))


def ipv6_prefix(type_: int, length: int, packed: str | bytes) -> bytes:
    """RFC 3162 §2.3; `packed` may have less than 16 bytes."""
    raw = parse_address(packed) if isinstance(packed, str) else packed
    return attribute(type_, bytes([0, length]) + raw)


def tlvs(*pairs: tuple[int, bytes]) -> bytes:
    """RFC 8045 §3.1.2: IP-Port-Range."""
    return extended(6, b"".join(attribute(*pair) for pair in pairs))


def port(number: int) -> bytes:
    return number.to_bytes(4, "big")


def nokia_block(line: str) -> bytes:
    return vendor(6527, text(121, line))


def huawei_block(address: bytes, first: bytes, last: bytes) -> bytes:
    """An empty value leaves its attribute out."""
    pairs = ((161, address), (162, first), (163, last))
    return vendor(2011, *(attribute(*pair) for pair in pairs if pair[1]))


def accounting_request(
    *attributes: bytes, secret: bytes = SECRET, is_signed: bool = False, identifier: int = 7
) -> bytes:
    """RFC 2866 §3, and RFC 2869 §5.14 where it is signed; written down anew, so that pyrad is not its own judge."""
    body = b"".join(attributes) + (attribute(80, bytes(16)) if is_signed else b"")
    head = bytes([4, identifier]) + (20 + len(body)).to_bytes(2, "big")
    if is_signed:
        body = body[:-16] + hmac.digest(secret, head + bytes(16) + body, "md5")
    return head + hashlib.md5(head + bytes(16) + body + secret).digest() + body


def status_server(*attributes: bytes, secret: bytes = SECRET, is_signed: bool = True) -> bytes:
    """RFC 5997 §3: a Request Authenticator from nowhere, and a Message-Authenticator over it."""
    body = b"".join(attributes) + (attribute(80, bytes(16)) if is_signed else b"")
    head = b"\x0c\x09" + (20 + len(body)).to_bytes(2, "big") + b"0123456789abcdef"
    if is_signed:
        body = body[:-16] + hmac.digest(secret, head + body, "md5")
    return head + body


def is_response(response: bytes, request: bytes, secret: bytes = SECRET) -> bool:
    """RFC 2866 §3: whether this answers the request, in the eyes of who sent it."""
    head, body = response[:4], response[20:]
    is_whole = int.from_bytes(head[2:], "big") == len(response) and head[:2] == bytes([5, request[1]])
    return is_whole and response[4:20] == hashlib.md5(head + request[4:20] + body + secret).digest()


def is_message_authentic(response: bytes, vector: bytes, secret: bytes = SECRET) -> bool:
    """RFC 2869 §5.14, where the Message-Authenticator comes first; `vector` stands for the authenticator."""
    assert response[20:22] == b"\x50\x12"
    zeroed = response[:4] + vector + response[20:22] + bytes(16) + response[38:]
    return hmac.digest(secret, zeroed, "md5") == response[22:38]
