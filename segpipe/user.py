"""Who is at work: the name that the promotion ledger and MLflow write down beside what was done."""

from __future__ import annotations

import getpass
import os


def current_user() -> str:
    """The name of the user of this process; the number in a container, whose user often has no name.

    `$LOGNAME`, `$USER` and their like come first, as in `getpass`.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
