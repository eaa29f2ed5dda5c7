"""Make a certificate for the sandbox, signed by a throwaway authority."""

from __future__ import annotations

import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from bulkbind.errors import BulkbindError
from bulkbind.files import replacing

NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"
DAYS = "30"


class Tls:
    """A temporary folder with the certificates of the authority and the server."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._folder = folder
        self._path = Path(folder.name)
        self.ca_file = self._path / "ca.pem"
        """The certificate that a client must trust."""

    @classmethod
    def make(cls) -> Self:
        """Make the certificates with the openssl command. Raises: BulkbindError."""
        made = cls(tempfile.TemporaryDirectory(prefix="bulkbind-tls-"))
        try:
            made._write()
        except BaseException:
            made.close()
            raise
        return made

    def context(self) -> ssl.SSLContext:
        """Return the server's TLS context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._path / "server.pem", self._path / "server.key")
        return context

    def close(self) -> None:
        """Delete the folder."""
        self._folder.cleanup()

    def _write(self) -> None:
        with replacing(self._path / "san") as file:
            file.write(NAMES)
        new = ("req", "-newkey", "rsa:2048", "-nodes")
        authority = ("-subj", "/CN=bulkbind sandbox throwaway CA", "-days", DAYS)
        self._openssl(*new, "-x509", *authority, "-keyout", "ca.key", "-out", "ca.pem")
        self._openssl(*new, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
        signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", DAYS)
        self._openssl(
            "x509", "-req", "-in", "server.csr", *signed_by, "-extfile", "san", "-out", "server.pem"
        )
        (self._path / "ca.key").unlink()  # it signs nothing more

    def _openssl(self, *arguments: str) -> None:
        try:
            subprocess.run(  # noqa: S603  # constants
                ["openssl", *arguments],  # noqa: S607  # found on PATH
                cwd=self._path,
                check=True,
                capture_output=True,
                timeout=60,
            )
        except FileNotFoundError as error:
            raise BulkbindError(
                "a sandbox with TLS needs the openssl command, which is not there",
                hint="install openssl, or leave TLS away",
            ) from error
        except subprocess.SubprocessError as error:
            raise BulkbindError(
                f"the openssl command could not make a certificate: {error}"
            ) from error
