"""Row A10: other listing order, time zone, locale, hash seed, number of workers and root: the same version."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fixtures import check_dataset
from tests.fixtures.ingest_worker import write_streets
from tests.fixtures.trials import Trials

WHOLE = 20
ZONES = ("UTC", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu")
LOCALES = ("C", "C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8", "POSIX")
ROOTS = ("plain", "deep/er/than/before", "ünï code", "with space/and 'quotes'", "-dash")
# A fresh interpreter: hash seed and text encoding are settled before its first line.
CODE = "import sys; from tests.fixtures.ingest_worker import print_shuffled as p; p(*sys.argv[1:])"


def test_the_surroundings_do_not_show(trials: Trials, source: Path, expected: str, tmp_path: Path) -> None:
    def trial(number: int) -> None:
        chance = random.Random(number)
        root, to = tmp_path / str(number) / chance.choice(ROOTS), tmp_path / f"to{number}"
        if chance.random() < 0.5:
            write_streets(root, order=-1)  # made backwards, so that the folder's own order is another one
        else:
            shutil.copytree(source, root)
        surroundings = {
            **os.environ,
            "TZ": chance.choice(ZONES),
            "LC_ALL": chance.choice(LOCALES),
            "PYTHONHASHSEED": str(chance.randrange(1000)),
            "PYTHONUTF8": chance.choice("01"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        arguments = [str(root), str(to), str(number), str(number % 3 + 1)]
        done = subprocess.run(
            [sys.executable, "-c", CODE, *arguments], env=surroundings, capture_output=True, text=True, check=False
        )
        told = {name: surroundings[name] for name in ("TZ", "LC_ALL", "PYTHONHASHSEED", "PYTHONUTF8")}
        assert (done.returncode, done.stdout.strip()) == (0, expected), (told, arguments, done.stderr[-2000:])
        check_dataset.judge(to, allowed=([expected],))

    trials.run("A10", WHOLE, trial)
