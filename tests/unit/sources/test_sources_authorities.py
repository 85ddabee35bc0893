"""Certificate authorities under strict verification: what is said of them is what OpenSSL does."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gatewayd.sources.fetch import find_shortcomings
from tests.support.authority import SIGNS_CERTIFICATES, Authority

KEY = ec.generate_private_key(ec.SECP256R1())
CONSTRAINTS = (x509.BasicConstraints(ca=True, path_length=None), True)
USAGE = (SIGNS_CERTIFICATES, True)
SUBJECT = (x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()), False)
ISSUER = (x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), False)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(*extensions: tuple[x509.ExtensionType, bool], issuer: str = "ca") -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(name(issuer))
        .subject_name(name("ca"))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def strictly_trusts(authority: Authority) -> bool:
    """A handshake in memory with a server of the authority, as Python 3.13 does it by default."""
    client = ssl.create_default_context(cafile=authority.ca_file)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname="registry.invalid")
    answering = authority.server_context().wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
            if side is asking:
                return True
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("strict", [True, False])
def test_what_is_said_of_an_authority_is_what_openssl_does(tmp_path: Path, strict: bool) -> None:
    authority = Authority(tmp_path, strict=strict)
    assert strictly_trusts(authority) is strict
    assert (find_shortcomings(authority.ca_file.read_bytes()) == []) is strict


@pytest.mark.parametrize(
    ("pem", "lacks"),
    [
        (certificate(CONSTRAINTS, USAGE, SUBJECT), ""),
        (certificate(CONSTRAINTS, USAGE, SUBJECT, ISSUER, issuer="root"), ""),
        (certificate(CONSTRAINTS, USAGE, SUBJECT, issuer="root"), "an Authority Key Identifier"),
        (certificate(CONSTRAINTS, USAGE), "a Subject Key Identifier"),
        (certificate(CONSTRAINTS, SUBJECT), "the Key Usage keyCertSign"),
        (certificate((CONSTRAINTS[0], False), USAGE, SUBJECT), "critical Basic Constraints CA:TRUE"),
        (certificate(USAGE, SUBJECT), "critical Basic Constraints CA:TRUE"),
        (
            certificate(),
            "critical Basic Constraints CA:TRUE, the Key Usage keyCertSign, a Subject Key Identifier",
        ),
    ],
)
def test_each_that_is_missing_is_named(pem: bytes, lacks: str) -> None:
    assert find_shortcomings(pem) == ([f"certificate 1 (CN=ca) lacks {lacks}"] if lacks else [])


def test_each_certificate_of_a_file_is_looked_at() -> None:
    good, bad = certificate(CONSTRAINTS, USAGE, SUBJECT), certificate(CONSTRAINTS, USAGE)
    assert [each.partition(" (")[0] for each in find_shortcomings(good + bad + good + bad)] == [
        "certificate 2",
        "certificate 4",
    ]


def test_a_certificate_whose_extensions_cannot_be_read_is_named() -> None:
    twice = certificate(CONSTRAINTS, (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.15"), b"x"), False))
    assert find_shortcomings(twice) == ["certificate 1 (CN=ca) lacks extensions that can be read"]


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_a_file_of_no_certificates_is_somebody_elses_to_refuse(pem: bytes) -> None:
    assert find_shortcomings(pem) == []
