"""The walls of the house: which room may import what. Checked by parsing every file, imports inside functions included.

The table is the law; where it differs from what a change needs, change the table in the same commit and say why.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALL_ROOMS = "*"

# room: (rooms of segpipe, packages from outside). A room is a module or a package of segpipe, or `flows`.
WALLS: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "types": ({"errors"}, set()),
    "version": (set(), set()),
    "cores": (set(), set()),
    "user": (set(), set()),
    "reports": ({"types", "errors"}, set()),
    "config": ({"types", "errors"}, {"pydantic", "yaml"}),
    "storage": ({"errors"}, {"fsspec"}),
    "masks": ({"types", "errors"}, {"numpy", "PIL", "simplejpeg"}),
    "predictions": ({"types"}, {"numpy"}),
    "refine": ({"types", "errors", "masks", "predictions", "heatmaps", "models"}, {"torch", "numpy", "scipy"}),
    "answers": ({"types", "predictions"}, set()),
    "drift": ({"types", "predictions"}, {"numpy"}),
    "sources": ({"types", "errors", "storage", "masks", "shards"}, {"numpy", "PIL", "yaml"}),
    "exports": ({"types", "errors", "storage", "masks"}, {"numpy", "PIL"}),
    "shards": ({"types", "errors", "storage", "reports"}, {"pyarrow"}),
    "classical": ({"types", "errors", "masks"}, {"numpy", "scipy", "skimage", "sklearn", "threadpoolctl", "cv2"}),
    # `models/classical.py` makes models of the methods, which know no torch. Their libraries are imported by the
    # functions that use them, or listing architectures would cost seconds more; `ONE_ROOM` below still holds for them.
    "models": ({"types", "errors", "classical"}, {"torch", "torchvision", "numpy", "safetensors"}),
    # Looks at architectures from outside: what they cost and see.
    "profiles": ({"types", "errors", "models"}, {"torch"}),
    # Beside what writes a network's file it is compared here with the model, by the task's own way to a score.
    "portable": ({"types", "errors", "models", "data", "tasks"}, {"torch", "onnxruntime"}),
    "losses": (set(), {"torch", "scipy"}),
    "heatmaps": (set(), {"torch"}),
    # Regions of a map are found by scipy's labelling: in NumPy it costs more than the forward pass that it is beside.
    "metrics": ({"types", "errors", "masks", "predictions"}, {"numpy", "torch", "scipy", "faster_coco_eval"}),
    # What pages show of a prediction says what was found as the measure does.
    "sketches": ({"errors", "masks", "predictions", "metrics"}, {"numpy"}),
    "data": ({"types", "errors", "config", "shards", "masks"}, {"torch", "torchvision", "numpy"}),
    "tasks": (
        {
            "types",
            "errors",
            "config",
            "data",
            "models",
            "losses",
            "heatmaps",
            "metrics",
            "masks",
            "predictions",
            "refine",
        },
        {"torch", "numpy"},
    ),
    "checkpoint": ({"types", "errors", "storage", "reports", "models"}, {"torch", "safetensors"}),
    "evaluate": (
        {
            "types",
            "errors",
            "version",
            "predictions",
            "drift",  # what answers to other images are held against is counted with the scores
            "sketches",  # what pages show of an image is made where its prediction and truth are
            "config",
            "shards",
            "data",
            "models",
            "tasks",
            "metrics",
            "checkpoint",
        },
        {"torch", "numpy"},  # an image as whoever asks a model from outside has it: an array
    ),
    "train": (
        {
            "types",
            "errors",
            "cores",
            "config",
            "storage",
            "shards",
            "data",
            "models",
            "tasks",
            "checkpoint",
            "evaluate",
        },
        {"torch"},
    ),
    "crf_search": ({"types", "data", "predictions", "tasks", "metrics", "evaluate"}, {"torch"}),
    "palettes": ({"types", "errors", "sources"}, set()),
    # Asks a model about images that nobody scores, and makes files and rows of what it says.
    "predict": (
        {"types", "errors", "predictions", "drift", "data", "models", "tasks", "checkpoint", "masks", "report"},
        {"torch", "numpy", "PIL"},
    ),
    # Which images a person should label, of what models say of them.
    "selection": ({"types", "errors", "masks", "predictions"}, {"numpy"}),
    "leaderboard": ({"types", "errors"}, set()),
    "promotion": ({"types", "errors", "storage", "leaderboard", "reports", "metrics"}, {"numpy"}),
    "tracking": ({"types", "errors", "storage", "user"}, {"mlflow"}),
    "serving": (
        # `masks` reads the images that are sent as files, and writes the masks that go back.
        {"types", "errors", "predictions", "answers", "masks", "config", "data", "models", "tasks", "checkpoint"},
        {"torch", "numpy", "mlflow"},
    ),
    # A process of its own, which loads a model as a server does and knows nothing of the one that starts it.
    "fresh_answers": ({"serving"}, {"numpy"}),
    # A picture says what was found by the overlap that the measure counts, not by one of its own.
    # Pages are made by jinja2, whose own type of text that is escaped already is markupsafe's.
    "report": (
        {"types", "errors", "masks", "predictions", "metrics", "sketches"},
        {"numpy", "PIL", "jinja2", "markupsafe"},
    ),
    "stages": ({ALL_ROOMS}, set()),
    "cli": ({"stages", "config", "types", "errors"}, {"typer", "rich"}),
    "flows": ({"stages", "config", "types", "errors", "cli"}, {"prefect", "typer", "rich"}),
}
# A part of a room that may import more than its room.
DOORS = {
    "segpipe/train/on_ray/": {"ray"},
    "segpipe/sources/reading/hdf5.py": {"h5py"},
    "segpipe/models/parts/backbones/timm_features.py": {"timm"},  # an optional extra, imported when it is asked for
}
# Each of these is met in one room only (mlflow's types also in `serving`, which MLflow loads).
ONE_ROOM = {
    "prefect": {"flows"},
    "ray": {"train"},
    "mlflow": {"tracking", "serving"},
    "pyarrow": {"shards"},
    "h5py": {"sources"},
    "timm": {"models"},
    "faster_coco_eval": {"metrics"},
    "onnxruntime": {"portable"},
    "fsspec": {"storage"},
    "skimage": {"classical"},
    "sklearn": {"classical"},
    "cv2": {"classical"},
}
# Files of these rooms stand side by side and know nothing of each other, except for what all of them are built from.
SIBLINGS = {
    "sources": {"spec", "reading", "__init__"},
    "models": {"spec", "parts", "pretrained", "start", "__init__"},
    "tasks": {
        "finite",
        "given_boxes",
        "told",
        "headline",
        "refusals",
        "objects",
        "painting",
        "pixel_losses",
        "regions",
        "queries",
        "thing_maps",
        "views",
        "memory",
        "__init__",
    },
    "exports": {"spec", "naming", "__init__"},
}
# An architecture made of another one's parts: its file may import the other's.
PARENTS = {
    "bayesian_segnet": {"segnet"},
    "mask_rcnn": {"faster_rcnn"},
    "panoptic_fpn": {"mask_rcnn"},
    "unet_watershed": {"unet"},
}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
UNSAFE_CALLS = {"eval", "exec", "pickle.load", "pickle.loads", "yaml.unsafe_load", "marshal.loads", "os.system"}


def source_files() -> list[Path]:
    return sorted([*ROOT.glob("segpipe/**/*.py"), *ROOT.glob("flows/**/*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "flows" if parts[0] == "flows" else (parts[1] if len(parts) > 1 else "")


@functools.cache  # asked of every file by a dozen tests
def imported_modules(path: Path) -> tuple[tuple[int, str], ...]:
    """(line, dotted module) of every import anywhere in the file; `from segpipe import x` counts as segpipe.x."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide which room is entered"
            module = node.module or ""
            if module in ("segpipe", "flows"):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


@pytest.mark.parametrize("path", source_files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_stay_within_the_walls(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not imported_modules(path), f"{path}: the package itself imports nothing"
        return
    assert room in WALLS, f"{path}: room {room!r} is not in the table; add it to WALLS with what it may import"
    rooms, packages = WALLS[room]
    place = path.relative_to(ROOT).as_posix()
    packages = packages.union(*(more for door, more in DOORS.items() if place.startswith(door)))
    for line, module in imported_modules(path):
        top, _, rest = module.partition(".")
        if top == "flows":
            assert room == "flows", f"{path}:{line}: {room} imports {module}"
        elif top == "segpipe":
            target = rest.split(".")[0]
            below = ALL_ROOMS in rooms and target != "cli"  # a door is above everything
            inside = target in ("", "__version__", room) or below or target in rooms
            assert inside, f"{path}:{line}: {room} imports {module}; it may import {sorted(rooms)}"
        elif top not in sys.stdlib_module_names:
            assert top in packages, f"{path}:{line}: {room} imports {module}; from outside it may {sorted(packages)}"


@pytest.mark.parametrize("package", ONE_ROOM)
def test_each_heavy_package_lives_in_one_room(package: str) -> None:
    rooms = {
        room_of(path)
        for path in source_files()
        for _, module in imported_modules(path)
        if module.split(".")[0] == package
    }
    assert rooms <= ONE_ROOM[package]
    assert rooms, f"nobody imports {package}: take it out of the table"


@pytest.mark.parametrize("room", SIBLINGS)
def test_siblings_do_not_import_each_other(room: str) -> None:
    for path in (ROOT / "segpipe" / room).glob("**/*.py"):
        if path.stem == "__init__":
            continue
        own = path.relative_to(ROOT / "segpipe" / room).parts[0].removesuffix(".py")
        for line, module in imported_modules(path):
            parts = module.split(".")
            if parts[:2] == ["segpipe", room] and len(parts) > 2:
                known = SIBLINGS[room] | PARENTS.get(own, set()) | {own}
                assert parts[2] in known, f"{path}:{line}: imports its sibling {module}"


@pytest.mark.parametrize("path", source_files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_open_with_their_purpose_and_stay_short(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path}: the file does not say what it is for"
    lines = len(text.splitlines())
    assert lines <= LONGEST_FILE, f"{path}: {lines} lines; split it"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", source_files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_unsafe_calls(path: Path) -> None:
    """Nothing that executes what it reads (reliability row E5)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in UNSAFE_CALLS, f"{path}:{node.lineno}: {name}"
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name == "torch.load":
                assert keywords.get("weights_only") == "True", f"{path}:{node.lineno}: torch.load without weights_only"
            if name == "yaml.load":
                assert "SafeLoader" in keywords.get("Loader", "") or "Strict" in keywords.get("Loader", "")
            assert keywords.get("shell") != "True", f"{path}:{node.lineno}: a shell"


def test_the_table_names_only_rooms_that_exist() -> None:
    rooms = {room_of(path) for path in source_files()} - {"__init__"}
    assert rooms == set(WALLS), f"in the table only: {set(WALLS) - rooms}; without a row: {rooms - set(WALLS)}"
