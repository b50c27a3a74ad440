"""Certificates that live for a day."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


def self_signed(name: str) -> tuple[bytes, bytes]:
    """Return key and certificate in PEM, for this machine's address 127.0.0.2.

    :param name: whom it is of.
    """
    key = _new_key()
    return _key_text(key), _certificate(name, key, name, key, is_authority=True)


def signed_by_authority(name: str) -> tuple[bytes, bytes, bytes]:
    """Return key and certificate in PEM as :func:`self_signed`, and the certificate of the authority that signed it.

    Some clients take no certificate of an authority as that of a server.
    """
    authority_key, key, authority = _new_key(), _new_key(), f"{name}, authority"
    signed = _certificate(name, key, authority, authority_key, is_authority=False)
    return _key_text(key), signed, _certificate(authority, authority_key, authority, authority_key, is_authority=True)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _key_text(key: rsa.RSAPrivateKey) -> bytes:
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _certificate(
    name: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey, *, is_authority: bool
) -> bytes:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now, address = datetime.datetime.now(datetime.UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))
    certificate = (
        x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
