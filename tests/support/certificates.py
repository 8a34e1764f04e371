"""Certificates for tests, made on the spot."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Certificate(NamedTuple):
    """PEM files: a certificate signed by itself, and its key."""

    certificate: Path
    key: Path


def certificate_for(address: str, folder: Path) -> Certificate:
    """A certificate of an IP address."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("there is no openssl to make a certificate with")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", f"/CN={address}", "-addext", f"subjectAltName=IP:{address}"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(
        [openssl, "req", "-x509", *kind, *named, *files], check=True, capture_output=True
    )
    return made
