"""zeep's part of a SOAP client: what a package's WSDL says, read from its folder alone.

Imported when the first client is made: zeep and what it brings are a quarter of the start of a
process, and most processes that know of a SOAP partner never talk to one.
"""

from pathlib import Path
from typing import Any, Final

import zeep
import zeep.exceptions
import zeep.transports

Invalid: Final = zeep.exceptions.ValidationError


class _Transport(zeep.transports.Transport):
    """Sends nothing; loads nothing but files of the package's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._folder = folder.resolve()

    def load(self, url: str) -> bytes:
        """Return a file beside the WSDL. Raises ValueError for anything else."""
        file = Path(url.removeprefix("file://")).resolve()
        if not file.is_relative_to(self._folder):
            raise ValueError(f"{url}: is not beside the WSDL")
        return file.read_bytes()


def open_wsdl(wsdl: Path) -> Any:
    """Return zeep's client of `wsdl`, which makes messages and sends none."""
    settings = zeep.Settings(
        strict=True,
        forbid_dtd=True,
        forbid_entities=True,
        forbid_external=True,
        xml_huge_tree=False,
    )
    return zeep.Client(str(wsdl), transport=_Transport(wsdl.parent), settings=settings)
