"""Row A8: hostile inputs of every kind, each in a process of its own: the right action, in 10 s and 300 MiB."""

import io
import json
import os
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.fixtures import check_dataset, hostile, hostile_worker
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.mini_datasets import HEIGHT, WIDTH, WRITERS
from tests.fixtures.pictures import label_blocks, photograph, png
from tests.fixtures.publish_worker import run_child
from tests.fixtures.trials import Trials

SECONDS, MEBIBYTES = 10.0, 300.0
COUNT = 6  # samples of the folder; the hostile one is img_001
IMAGE, MASK = "images/img_001.jpg", "masks/img_001.png"
REFUSED = "refused"  # the whole source, by an InputError that names the file
PUBLISHED = ""


class Case(NamedTuple):
    """What is done to a source of `format`, and what must come of it: a quarantine reason, PUBLISHED or REFUSED."""

    name: str
    spoil: Callable[[Path], object]
    action: str
    format: str = "folder"
    words: str = ""


def put(path: str, data: bytes | str | Callable[[], bytes]) -> Callable[[Path], object]:
    """Writes a file; what takes a second to make is made only then."""

    def spoil(root: Path) -> None:
        content = data() if callable(data) else data
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def both(width: int, height: int, picture: Callable[[int, int], bytes]) -> Callable[[Path], object]:
    """A vast picture with a mask of its size."""

    def spoil(root: Path) -> None:
        (root / IMAGE).write_bytes(picture(width, height))
        (root / MASK).write_bytes(hostile.flat_png(width, height, colour_type=0))

    return spoil


def replaced(path: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something that is no regular file in the place of `path`."""

    def spoil(root: Path) -> None:
        (root / path).unlink()
        make(root / path)

    return spoil


def link_to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(3 << 30)


def encoded(mode: str, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (30, 24)).save(stream, kind, **options)
    return stream.getvalue()


def named(name: str | bytes) -> Callable[[Path], object]:
    """One more pair of files of an odd name."""

    def spoil(root: Path) -> None:
        for folder, suffix, data in (
            ("images", ".jpg", photograph(24, 30)),
            ("masks", ".png", png(label_blocks(24, 30, 3))),
        ):
            whole = (
                os.fsencode(root / folder)
                + b"/"
                + (name if isinstance(name, bytes) else name.encode())
                + suffix.encode()
            )
            Path(os.fsdecode(whole)).write_bytes(data)

    return spoil


def classes(text: str) -> Callable[[Path], object]:
    """A classes.json in the place of classes.txt."""

    def spoil(root: Path) -> None:
        (root / "classes.txt").unlink()
        (root / "classes.json").write_text(text)

    return spoil


def annotation(path: str, **changes: Any) -> Callable[[Path], object]:
    """Changes the first annotation (COCO) or shape (LabelMe) of a document; NaN is written as JSON has it not."""

    def spoil(root: Path) -> None:
        document = json.loads((root / path).read_text())
        document["shapes" if "shapes" in document else "annotations"][0].update(changes)
        (root / path).write_text(json.dumps(document))

    return spoil


NAN, HUGE = float("nan"), 10**400
TRAIN, DRAWING, YAML, LABELS = "annotations/instances_train2017.json", "photo_0.json", "data.yaml", "labels/train/a.txt"
SHARED = f"&a [{'x,' * 9}x]"
BOMB = "\n".join(
    [f"a0: {SHARED}", *(f"a{n}: &b{n} [{f'*b{n - 1},' * 9 if n > 1 else '*a,' * 9}]" for n in range(1, 30))]
)
MERGES = "\n".join(["m0: &m0 {k: 1}", *(f"m{n}: &m{n}\n  !!merge <<: [{f'*m{n - 1},' * 9}]" for n in range(1, 12))])

IMAGES = [
    Case("vast png", both(8_000, 8_000, hostile.flat_png), "too_large"),
    Case("vast jpeg", both(9_000, 9_000, hostile.flat_jpeg), "too_large"),
    Case(
        "header of 4 gigapixels", put(IMAGE, hostile.header(65_500, 65_500) + hostile.flat_png(9, 9)[33:]), "too_large"
    ),
    Case("header of no pixels", put(IMAGE, hostile.header(0, 7) + b"IEND"), "unreadable"),
    Case("vast mask", put(MASK, lambda: hostile.flat_png(8_000, 8_000, colour_type=0)), "size_mismatch"),
    Case("scans", put(IMAGE, lambda: hostile.many_scans(4_000, 4_000, 3_000)), "too_large"),
    Case("chunks", put(IMAGE, lambda: hostile.many_chunks(2_000_000)), "too_large"),
    Case(
        "comment", put(IMAGE, lambda: hostile.flat_png(30, 24, before=hostile.inflated(b"zTXt", 1 << 28))), "unreadable"
    ),
    Case(
        "profile", put(IMAGE, lambda: hostile.flat_png(30, 24, before=hostile.inflated(b"iCCP", 1 << 28))), "unreadable"
    ),
    Case(
        "too many pixels",
        put(IMAGE, lambda: hostile.flat_png(30, 24)[:-12] + hostile.inflated(b"IDAT", 1 << 28)),
        "truncated",
    ),
    Case("sparse file", replaced(IMAGE, sparse), "too_large"),
    Case("empty", put(IMAGE, b""), "truncated"),
    Case("cut", put(IMAGE, photograph(24, 30)[:-60]), "truncated"),
    Case("cut mask", put(MASK, png(label_blocks(24, 30, 3))[:-30]), "truncated"),
    Case("a page", put(IMAGE, "<!DOCTYPE html><title>404"), "format_not_allowed"),
    Case(
        "svg",
        put(IMAGE, '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>'),
        "format_not_allowed",
    ),
    Case("zip", put(IMAGE, b"PK\3\4" + bytes(99)), "format_not_allowed"),
    Case("postscript", put(IMAGE, b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file"), "format_not_allowed"),
    Case("gif", put(IMAGE, encoded("P", "GIF")), "format_not_allowed"),
    Case("tiff", put(IMAGE, encoded("RGB", "TIFF")), "format_not_allowed"),
    Case("webp", put(IMAGE, encoded("RGB", "WEBP")), "format_not_allowed"),
    Case("cmyk", put(IMAGE, encoded("CMYK", "JPEG")), "format_not_allowed"),
    Case("16 bit grey", put(IMAGE, png(np.zeros((24, 30), np.uint16))), "format_not_allowed"),
    Case("animation", put(IMAGE, hostile.animated_png(3)), "format_not_allowed"),
    Case("png called jpg", put(IMAGE, photograph(24, 30, encoding="PNG")), PUBLISHED),
    Case("grey with alpha", put(IMAGE, encoded("LA", "PNG")), PUBLISHED),
    *(Case(f"turned {n}", put(IMAGE, photograph(24, 30, orientation=n)), "exif_rotated") for n in range(2, 9)),
    Case("turned png", put(IMAGE, photograph(24, 30, encoding="PNG", orientation=6)), "exif_rotated"),
    Case("jpeg mask", put(MASK, photograph(24, 30)), "format_not_allowed"),
    Case("rgba mask", put(MASK, png(np.zeros((24, 30, 4), np.uint8))), "mask_mode"),
    Case("rgb mask", put(MASK, png(np.zeros((24, 30, 3), np.uint8))), "mask_mode"),
    Case("16 bit rgb mask", put(MASK, hostile.rgb_16_bit(30, 24)), "mask_mode"),
    Case("unknown id", put(MASK, png(np.full((24, 30), 9, np.uint8))), "label_out_of_range"),
    Case("unknown 16 bit id", put(MASK, png(np.full((24, 30), 256, np.uint16))), "label_out_of_range"),
    Case("palette of an id", put(MASK, png(np.full((24, 30), 9, np.uint8), palette=[0] * 768)), "label_out_of_range"),
    Case("turned mask", put(MASK, png(label_blocks(30, 24, 3))), "size_mismatch"),
]
FILES = [
    Case("link out", replaced(IMAGE, link_to("/etc/hostname")), "outside_root"),
    Case("mask link out", replaced(MASK, link_to("/etc/passwd")), "outside_root"),
    Case("endless device", replaced(IMAGE, link_to("/dev/zero")), "missing_image"),
    Case("dangling", replaced(IMAGE, link_to("nowhere.jpg")), "missing_image"),
    Case("loop", replaced(IMAGE, link_to("img_001.jpg")), "missing_image"),
    Case("fifo", replaced(IMAGE, os.mkfifo), "missing_image"),
    Case("fifo mask", replaced(MASK, os.mkfifo), "missing_mask"),
    Case("socket", replaced(IMAGE, listening), "missing_image"),
    Case("folder", replaced(IMAGE, Path.mkdir), "missing_image"),
    Case("line feed in a name", named("img\n_x"), "bad_name"),
    Case("escape in a name", named("img\x1b[2J_x"), "bad_name"),
    Case("delete and bell", named("img\x7f\x07"), "bad_name"),
    Case("no utf-8", named(b"img_\xff\xfe"), "bad_name"),
    Case("turned round by unicode", named("img_‮gnp"), PUBLISHED),
    Case("a shell's words", named("$(reboot); rm -rf ~ '\"`"), PUBLISHED),
    Case("options", named("--help"), PUBLISHED),
    Case("dots", named("a...b"), PUBLISHED),
    Case("a long name", named("x" * 251), PUBLISHED),
    Case("decomposed", named(unicodedata.normalize("NFD", "ä")), PUBLISHED),
    Case("list without end", put("train.txt", "img_000\n" * 50_000), "duplicate_id"),
    Case(
        "list that leads out",
        put("train.txt", "".join(f"img_00{n}\n" for n in range(COUNT)) + "../../../etc/passwd\n/etc/passwd\n"),
        "missing_image",
    ),
    Case("list of bytes", put("train.txt", b"img_000\n\xff\xfe\n"), REFUSED, words="UTF-8"),
    Case(
        "20,000 classes", put("classes.txt", "ground\nplant\nstone\n" + "\n".join(map(str, range(20_000)))), PUBLISHED
    ),
    Case("too many classes", put("classes.txt", "\n".join(map(str, range(70_000)))), REFUSED, words="70000 classes"),
]
DOCUMENTS = [
    *(
        Case(f"classes {name}", classes(text), REFUSED, words="classes.json")
        for name, text in {
            "deep": "[" * 200_000,
            "deep objects": '{"a":' * 100_000,
            "digits": f'[{{"name": "a", "id": {"9" * 5000}}}]',
            "nan": '[{"name": "a", "id": NaN}]',
            "twice": '[{"name": "a", "name": "b"}]',
            "number": "1e999",
            "id": '[{"name": "a", "id": -1}]',
            "half": '[{"name": "a"',
            "empty": "",
            "no list": "{}",
        }.items()
    ),
    *(
        Case(f"coco {name}", put(TRAIN, text), REFUSED, "coco", TRAIN)
        for name, text in {
            "deep": "[" * 500_000,
            "nan": '{"images": [NaN]}',
            "infinite": '{"images": [1e999]}',
            "twice": '{"images": [], "images": []}',
            "half a pair": '{"images": "\\ud800"}',
            "bytes": b"\xff\xfe{\0}\0",
            "no object": "[]",
            "digits": '{"images": ' + "9" * 5000 + "}",
        }.items()
    ),
    *(
        Case(f"coco {name}", annotation(TRAIN, **changes), "bad_annotation", "coco")
        for name, changes in {
            "huge coordinates": {"segmentation": [[0, 0, 1e300, 0, 1e300, 1e300]]},
            "far coordinates": {"segmentation": [[-9e5, -9e5, 9e5, 9e5] * 50]},
            "digits": {"segmentation": [[HUGE] * 6]},
            "odd": {"segmentation": [[1, 2, 3, 4, 5]]},
            "words": {"segmentation": [["a"] * 6]},
            "deep": {"segmentation": [[[[[[1]]]]]]},
            "a bool": {"segmentation": True},
            "negative run": {"segmentation": {"counts": [HEIGHT * WIDTH + 5, -5], "size": [HEIGHT, WIDTH]}},
            "run too long": {"segmentation": {"counts": [2**63], "size": [HEIGHT, WIDTH]}},
            "runs that add up to it by overflow": {
                "segmentation": {"counts": [2**62] * 4 + [HEIGHT * WIDTH], "size": [HEIGHT, WIDTH]}
            },
            "vast size": {"segmentation": {"counts": [10**18], "size": [10**9, 10**9]}},
            "text run": {"segmentation": {"counts": "o" * 100_000, "size": [HEIGHT, WIDTH]}},
            "no text": {"segmentation": {"counts": "\x00ÿ", "size": [HEIGHT, WIDTH]}},
            "path": {"image_id": "../../etc/passwd"},
            "category": {"category_id": 10**30},
        }.items()
    ),
    *(
        Case(f"labelme {name}", annotation(DRAWING, **changes), "bad_annotation", "labelme")
        for name, changes in {
            "nan": {"points": [[NAN, 1], [2, 3], [4, 5]]},
            "digits": {"points": [[HUGE, 1], [2, 3], [4, 5]]},
            "huge": {"points": [[1e300, 1], [2, 3], [4, 5]]},
            "outside": {"points": [[9e5, 9e5], [9e5, 8e5], [8e5, 9e5]]},
            "a word": {"points": [["x", 1], [2, 3], [4, 5]]},
            "kind": {"shape_type": "__class__"},
            "label": {"label": ["a"]},
        }.items()
    ),
    Case("labelme deep", put(DRAWING, "[" * 300_000), "bad_annotation", "labelme"),
    Case("yolo aliases", put(YAML, BOMB + "\nnames: *b29\n"), REFUSED, "yolo", YAML),
    Case("yolo merges", put(YAML, MERGES + "\nnames: {0: a}\n"), REFUSED, "yolo", YAML),
    Case("yolo deep", put(YAML, "names: " + "[" * 300_000), REFUSED, "yolo", YAML),
    Case("yolo object", put(YAML, 'names: !!python/object/apply:os.system ["true"]\n'), REFUSED, "yolo", YAML),
    Case("yolo too long", put(YAML, "names: [a]\n#" + "x" * 2_000_000), REFUSED, "yolo", YAML),
    Case("yolo names of itself", put(YAML, "names: &a [*a]\n"), REFUSED, "yolo", YAML),
    *(
        Case(f"yolo {name}", put(LABELS, text), reason, "yolo")
        for name, text, reason in (
            ("nan", "1 nan 0 1 0 1 1\n", "bad_annotation"),
            ("infinite", "1 0 0 1e999 0 1 1\n", "bad_annotation"),
            ("outside", "1 0 0 1e9 0 1 1\n", "bad_annotation"),
            ("class", f"{'9' * 4000} 0 0 1 0 1 1\n", "label_out_of_range"),
            ("bytes", b"\0\xff\n", "label_out_of_range"),
            ("one long line", "1 " + "0.5 " * 2_000_001 + "\n", "bad_annotation"),
        )
    ),
]
CASES = [*IMAGES, *FILES, *DOCUMENTS]


def test_hostile_inputs_end_as_they_should_and_soon(trials: Trials, tmp_path: Path) -> None:
    """The neighbours of a bad sample are published; texts that tell of it hold no control characters."""
    run_child(hostile_worker.examine, config_of("folder", write_folder_mini(tmp_path / "warm")), str(tmp_path / "up"))

    def trial(number: int) -> None:
        case, root, to = CASES[number], tmp_path / f"root{number}", tmp_path / f"to{number}"
        write_folder_mini(root, count=COUNT) if case.format == "folder" else WRITERS[case.format](root)
        case.spoil(root)
        status, answer = run_child(hostile_worker.examine, config_of(case.format, root), str(to))
        assert status == 0, f"{case.name}: the process ended with {status}"
        assert answer["seconds"] <= SECONDS, (case.name, answer)
        assert answer["mebibytes"] <= MEBIBYTES, (case.name, answer)
        for text in (*answer["texts"], answer["message"]):
            assert not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text.replace("\n", " ")), text
        if case.action == REFUSED:
            assert answer["error"] == "InputError", (case.name, answer)
            assert case.words in answer["message"], (case.name, answer)
            check_dataset.judge(to, allowed=([],))
            return
        assert answer["error"] == "", (case.name, answer)
        assert set(answer["reasons"]) == ({case.action} if case.action else set()), (case.name, answer)
        check_dataset.judge(to, allowed=([answer["version"]],))
        if case.format == "folder" and "list" not in case.name:
            extra = case.spoil.__qualname__.startswith("named") and not case.action
            lost = bool(case.action) and not case.spoil.__qualname__.startswith("named")
            samples = sum(check_dataset.samples(to, answer["version"]).values())
            assert samples == COUNT + extra - lost, (case.name, samples)

    chosen = range(len(CASES)) if trials.soak else range(0, len(CASES), 10)
    trials.run("A8", chosen, trial)


def config_of(source: str, root: Path) -> dict[str, Any]:
    return {"name": "hostile", "format": source, "root": str(root), "max_quarantine": 1.0}
