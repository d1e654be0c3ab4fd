"""Scripts that tests run in processes of their own, under a hash seed that they choose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def told_by(script: str | Path, *words: str, seed: str, folder: Path | None = None) -> Any:
    """Run a script to its good end, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, str(script), *words],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
