"""Writes the example pages that `look.py` opens: python -m tests.browser.pages FOLDER. Needs no browser."""

import io
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from segpipe.report.card import render_card
from segpipe.report.side_by_side import Compared, render_night
from segpipe.types import Task
from tests.fixtures.object_pages import object_card, object_night
from tests.fixtures.pages import bare_facts, card_facts, night_facts


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (640, 360), (40, 160, 90)).save(buffer, "PNG")
    drawn = tuple(Compared(name=f"drawn {n}", pictures=(buffer.getvalue(),) * 3) for n in range(3))
    pages = {
        "card": render_card(card_facts()),
        "card_of_pictures": render_card(bare_facts(buffer.getvalue())),
        "side_by_side": render_night(night_facts()),
        "side_by_side_of_pictures": render_night(replace(night_facts(), images=drawn)),
    }
    for task in (Task.INSTANCE, Task.DETECTION, Task.PANOPTIC):
        pages[f"card_of_{task}"] = render_card(object_card(task))
        pages[f"side_by_side_of_{task}"] = render_night(object_night(task))
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
