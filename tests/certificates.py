"""Certificates for tests, made by the openssl program."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

__all__ = ["Authority"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


class Authority:
    """A certificate authority of its own, in `folder`. The test is skipped where openssl is missing."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed: no certificates for a TLS server")
        folder.mkdir(parents=True)
        self._folder = folder
        self.file = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            "req", "-x509", *_KEY, "-keyout", self._key, "-out", self.file, "-subj", "/CN=test-authority"
        )

    def issue(self, name: str, host: str = "127.0.0.1") -> tuple[Path, Path]:
        """A certificate for `host` and its key."""
        certificate, key, request, names = (
            self._folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr", "ext")
        )
        names.write_text(f"subjectAltName=IP:{host}\n", encoding="ascii")
        _openssl("req", *_KEY[:-2], "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signed = ("-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", names)
        _openssl("x509", "-req", "-in", request, *signed, "-out", certificate)
        return certificate, key

    def server_side(self, *, host: str = "127.0.0.1", asks_client: bool = False) -> ssl.SSLContext:
        """How a server with a certificate from here talks TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(f"server-{host}", host))
        if asks_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
