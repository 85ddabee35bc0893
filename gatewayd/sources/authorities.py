"""What a certificate authority of an operator's own lacks to be trusted by Python 3.13 and newer (Debian 13).

From there on `ssl.create_default_context` sets VERIFY_X509_STRICT, and OpenSSL holds certificates to RFC 5280
(crypto/x509/x509_vfy.c: check_extensions). Much of what `openssl req -x509` and `openssl x509 -req` made for years
lacks an extension or two, and a server that was trusted before an upgrade is not trusted after it. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.extensions import ExtensionNotFound

from gatewayd.errors import KeyInvalid, KeysUnusable
from gatewayd.feed.notification import VerifyingKey, load_verifying_keys

MAX_KEY_FILE_BYTES: Final = 64 * 1024


def read_keys(paths: Iterable[Path]) -> dict[str, VerifyingKey]:
    """By `kid`, of all files together. Blocking. Raises KeysUnusable, which names the file."""
    keys: dict[str, VerifyingKey] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_KEY_FILE_BYTES)
            found = load_verifying_keys([raw.decode()])
            for kid, key in found.items():
                if keys.setdefault(kid, key) != key:
                    raise KeyInvalid(f"{kid} is another key in another file")
        except OSError as error:
            raise KeysUnusable(str(path), error.strerror or str(error)) from None
        except UnicodeDecodeError:
            raise KeysUnusable(str(path), "is not UTF-8") from None
        except KeyInvalid as error:
            raise KeysUnusable(str(path), error.why) from None
    return keys


def find_shortcomings(pem: bytes) -> list[str]:
    """A sentence for each certificate of the file that strict verification would refuse; none if it has none.

    The server's own certificate is not in the file: it needs an Authority Key Identifier as well.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []
    found = []
    for number, certificate in enumerate(certificates, 1):
        try:
            lacks = _lacks(certificate)
        except ValueError:
            lacks = ["extensions that can be read"]
        if lacks:
            found.append(f"certificate {number} ({certificate.subject.rfc4514_string()}) lacks {', '.join(lacks)}")
    return found


def _lacks(certificate: x509.Certificate) -> list[str]:
    extensions = certificate.extensions
    lacks = []
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        if not (constraints.critical and constraints.value.ca):
            lacks.append("critical Basic Constraints CA:TRUE")
    except ExtensionNotFound:
        lacks.append("critical Basic Constraints CA:TRUE")
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            lacks.append("the Key Usage keyCertSign")
    except ExtensionNotFound:
        lacks.append("the Key Usage keyCertSign")
    if not _has(extensions, x509.SubjectKeyIdentifier):
        lacks.append("a Subject Key Identifier")
    if certificate.issuer != certificate.subject and not _has(extensions, x509.AuthorityKeyIdentifier):
        lacks.append("an Authority Key Identifier")
    return lacks


def _has(extensions: x509.Extensions, kind: type[x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier]) -> bool:
    try:
        extensions.get_extension_for_class(kind)
    except ExtensionNotFound:
        return False
    return True
