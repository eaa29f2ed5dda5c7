"""What the files of devices as mappings have in common: YAML, JSON Lines and JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from bulkbind.manifest.lines import open_text
from bulkbind.manifest.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkbind.manifest.lines import Text
    from bulkbind.model import CheckedRow, Source
    from bulkbind.settings import ManifestSettings


class TreeManifest(ABC):
    """One file.

    Attributes:
        source: Name, format and encoding.
        notices: What the operator should know; complete once the rows have been read.
    """

    undecodable: ClassVar[str | None] = None
    """See `open_text`."""

    def __init__(
        self,
        path: Path,
        source: Source,
        head: str,  # noqa: ARG002  # as every format is opened
        settings: ManifestSettings,
    ) -> None:
        self._path = path
        self._tree = Tree(source.name, settings)
        self.source = source
        self.notices: list[str] = []

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every device with its first line.

        Raises: ManifestError where the file as a whole is not what it should be.
        """
        with open_text(self._path, self.source, self.undecodable) as text:
            yield from self._read(text)
        self.notices += self._tree.notices()

    @abstractmethod
    def _read(self, text: Text) -> Iterator[CheckedRow]:
        """Yield every device of a text."""
