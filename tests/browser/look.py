"""Opens the pages of a folder in headless Chromium, without a network, and uses them: `make browser`.

    look.py FOLDER [CHROMIUM]      pages of `pages.py`, or any others of ours

Every page: no error on the console, no request, every image loads, nothing sticks out at 390 pixels, in light and dark;
text can be read. A page with a viewer: line, keys, choices and thumbnails do what they say. Ends with 1 and the list of
faults where there are some. Needs playwright; runs in an environment of its own, as no page of ours needs either.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

SIZES = ((1280, 900), (390, 844))
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
LOADED = "[...document.images].every((each) => each.complete && each.naturalWidth > 0)"
WIDTH = "document.documentElement.scrollWidth"
# The contrast of text with what is behind it, at least: WCAG 2.2's 4.5, or 3 where letters are large.
# Colours that are mixed have no plain number, and are left to the eye.
CONTRAST = """() => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const faults = [];
  for (const element of document.querySelectorAll("p, li, td, th, dd, dt, figcaption, h1, h2, h3, a, code")) {
    if (!element.textContent.trim() || !element.getClientRects().length) continue;
    let behind = element;
    while (behind && channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const style = getComputedStyle(element), back = getComputedStyle(behind || document.body).backgroundColor;
    if (!style.color.startsWith("rgb") || !back.startsWith("rgb")) continue;
    const [a, b] = [light(channels(style.color)), light(channels(back))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), needed = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < needed) faults.push(`${ratio.toFixed(2)} of "${element.textContent.trim().slice(0, 40)}"`);
  }
  return faults;
}"""


def open_page(browser: Any, file: Path, faults: list[str], *, size: tuple[int, int], scheme: str) -> Page:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True, reduced_motion="reduce"
    )
    page: Page = context.new_page()
    where = f"{file.name} at {size[0]} pixels, {scheme}"
    page.on("console", lambda told: faults.append(f"{where}: {told.text}") if told.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"{where}: {error}"))
    page.on("dialog", lambda dialog: (faults.append(f"{where}: a script of a user ran"), dialog.dismiss()))

    def asked(request: Any) -> None:
        if not request.url.startswith(("data:", file.as_uri())):
            faults.append(f"{where}: asks for {request.url[:80]}")

    page.on("request", asked)
    page.goto(file.as_uri())
    if page.locator("#stage").count():
        page.wait_for_selector("html[data-ready]", timeout=10_000)
    if not page.evaluate(LOADED):
        faults.append(f"{where}: an image did not load")
    if (wide := page.evaluate(WIDTH)) > size[0]:
        faults.append(f"{where}: is {wide} pixels wide")
    faults += [f"{where}: contrast {told}" for told in page.evaluate(CONTRAST)]
    return page


def use_viewer(page: Page, faults: list[str], name: str) -> None:
    """The line, the keys and the choices, each by what it changes."""

    def expect(what: str, is_so: bool) -> None:
        if not is_so:
            faults.append(f"{name}: {what}")

    def shown() -> str:
        return str(page.locator("#stage").get_attribute("data-shown"))

    def press(key: str) -> str:
        before = shown()
        page.keyboard.press(key)
        page.wait_for_timeout(150)
        return "" if shown() == before else shown()

    handle, stage = page.locator("#handle"), page.locator("#stage")
    stage.scroll_into_view_if_needed()
    handle.focus()
    for key, value in (("ArrowRight", "52"), ("ArrowLeft", "50"), ("Home", "0"), ("End", "100")):
        page.keyboard.press(key)
        expect(f"{key} moves the line to {value}", handle.get_attribute("aria-valuenow") == value)
    box = stage.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    expect("the line can be dragged", abs(int(handle.get_attribute("aria-valuenow") or 0) - 25) <= 1)
    clip = page.evaluate("getComputedStyle(document.getElementById('layer-b')).clipPath")
    expect("the line cuts the upper layer", "25" in clip or "24" in clip)
    if page.locator("#views button").count():
        page.wait_for_timeout(100)
        expect("the pointer tells the classes below it", "truth" in (page.locator("#told").text_content() or ""))
    for key in ("ArrowDown", "ArrowUp", "a", "A", "b", "B", *(["v"] if page.locator("#views button").count() else [])):
        expect(f"{key} changes what is shown", bool(press(key)))
    before = shown()
    page.locator("#side-a").select_option(index=2)
    page.wait_for_timeout(150)
    expect("a model can be chosen", shown() != before)
    page.locator("#strip button").nth(2).click()
    page.wait_for_timeout(150)
    expect("an image can be chosen", shown().startswith("2 "))
    painted = page.evaluate("document.querySelectorAll('#stage canvas, #stage img').length")
    expect("two layers are painted", painted == 2)


def main(folder: Path, chromium: str | None) -> int:
    faults: list[str] = []
    files = sorted(folder.resolve().rglob("*.html"))
    if not files:
        print(f"{folder}: holds no pages", file=sys.stderr)
        return 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for file in files:
            for size in SIZES:
                for scheme in ("light", "dark"):
                    page = open_page(browser, file, faults, size=size, scheme=scheme)
                    if scheme == "light" and page.locator("#stage").count():
                        use_viewer(page, faults, f"{file.name} at {size[0]} pixels")
                    page.context.close()
        browser.close()
    print("\n".join(dict.fromkeys(faults)) or f"{len(files)} pages, nothing to complain of")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 and sys.argv[2] else None))
