"""A session: the images that a person labels, the page that shows them, and the list that their labels go to."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jobs.labelled_list import LabelledLine
from jobs.labelling.label_file import LabelFile
from jobs.labelling.page import PageImage, render_labelling_page
from jobs.labelling.serving import LabelServer


@dataclass(frozen=True)
class LabellingSession:
    """Everything that a page is made of."""

    title: str
    intro: str
    classes: tuple[str, str]
    images: Sequence[PageImage]
    labels: LabelFile

    def page(self, *, served: Sequence[LabelledLine] | None = None) -> bytes:
        """Returns the page. ``served`` are the lines of the list when a server is asked for it."""
        return render_labelling_page(
            self.images,
            title=self.title,
            intro=self.intro,
            classes=self.classes,
            key=self.key,
            file_name=self.labels.path.name,
            kept=self.labels.lines if served is None else served,
            served=served is not None,
        )

    def server(self, port: int) -> LabelServer:
        """Returns a server of the page, which listens already."""
        return LabelServer(
            self.labels,
            lambda lines: self.page(served=lines),
            refs=self.refs,
            classes=self.classes,
            port=port,
        )

    @cached_property
    def refs(self) -> frozenset[str]:
        """The source_refs of the images."""
        return frozenset(image.source_ref for image in self.images)

    @property
    def answered(self) -> int:
        """How many of the images have a line in the list."""
        return len(self.refs & {line.source_ref for line in self.labels.lines})

    @property
    def key(self) -> str:
        """A name for what the browser keeps. A page that is made again, of the same images, finds it."""
        parts = [*self.classes, *(image.source_ref for image in self.images)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
