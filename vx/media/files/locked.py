"""Results that go into an encrypted ZIP file: AES-256, WinZip's AE-2, which 7-Zip and others open.

A container has to be written to the disk before it can be encrypted: the tables at its beginning are known last. So it
is written to a file that has no name. Nobody can open it but this process, and whatever becomes of this process, the
file system takes it back.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pyzipper

from vx.jobs import PartFile
from vx.media.files import results

_PIECE = 1 << 20
_AE_2 = 2
"""Without the CRC of what is encrypted, which would say something about it."""


class LockedTarget(results.Target):
    """A file without a name, at `path`, that gets into the ZIP file which `part` is to be."""

    def __init__(self, folder: str, part: PartFile, entry: str, mime_type: str, password: str) -> None:
        """`entry` and `mime_type` are of the file that is encrypted. VxError where the disk refuses."""
        super().__init__(folder, part)
        self._entry = entry
        self._password = password
        try:
            self._fd, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
            Path(name).unlink()
        except OSError as error:
            raise results.write_error(part.name, error) from error
        self._zip = self.path
        self.path = f"/proc/self/fd/{self._fd}"
        self.mime_type = mime_type

    def complete(self) -> int:
        """Encrypt what was written into the ZIP file; returns its size. VxError where the disk refuses."""
        try:
            self._encrypt()
        except OSError as error:
            super().discard()
            raise results.write_error(self.part.name, error) from error
        finally:
            self._close()
        return super().complete()

    def discard(self) -> None:
        """Nothing of it is of use."""
        self._close()
        super().discard()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _encrypt(self) -> None:
        with (
            Path(self.path).open("rb") as source,
            pyzipper.AESZipFile(self._zip, "w", compression=pyzipper.ZIP_STORED) as archive,
        ):
            archive.setpassword(self._password.encode())
            archive.setencryption(pyzipper.WZ_AES, nbits=256, force_wz_aes_version=_AE_2)
            info = archive.zipinfo_cls(self._entry)
            info.compress_type = pyzipper.ZIP_STORED
            info.external_attr = 0o600 << 16
            with archive.open(info, "w", force_zip64=True) as entry:
                while piece := source.read(_PIECE):
                    entry.write(piece)
