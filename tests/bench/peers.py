"""Peers: other projects' tools, each installed into an environment of its own, so that none disturbs ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PEERS = Path("build") / "peers"


def peer_python(name: str, requirements: Sequence[str]) -> Path:
    """The Python of a peer's environment, made if it is missing.

    Raises:
        subprocess.CalledProcessError: it cannot be installed; the installer says why on stderr.
    """
    folder = (PEERS / name).absolute()
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(requirements):
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *requirements]
        subprocess.run(install, check=True)
        ready.write_text("\n".join(requirements))
    return python


def run_peer(python: Path, code: str, *arguments: str) -> dict[str, Any]:
    """Run a script of a peer, whose last line on stdout is JSON: the peer times itself, without its start."""
    done = subprocess.run([str(python), "-c", code, *arguments], check=True, text=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.strip().splitlines()[-1])
