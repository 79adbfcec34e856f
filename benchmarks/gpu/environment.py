"""What the parts need before they start: packages, the device and the image pack.

This module imports only the standard library: it runs before the kit's packages are on the path.
"""

import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from benchmarks.gpu.plan import Part

ROOT = Path(__file__).parents[2]
KIT = ROOT / ".gpu-kit"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
WHEELS, MADE_FOR, IMAGES = "wheels", "made_for.json", "images.zip"
PACKAGES = "packages"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


class NotReadyError(Exception):
    """The kit cannot start. The message says in one sentence why, and what to do."""


def python_version() -> str:
    """Return the version of this interpreter as wheels name it, such as ``3.12``."""
    return ".".join(platform.python_version_tuple()[:2])


def missing_packages(kit: Path) -> list[Path]:
    """Return the wheels of the kit that this interpreter needs, as pip resolves them; nothing is installed.

    Without a folder of wheels the interpreter is expected to have everything.

    Raises:
        NotReadyError: if a required wheel is missing or is for another Python or processor.
    """
    wheels = kit / WHEELS
    if not wheels.is_dir():
        return []
    command = [*PIP, "install", "--quiet", "--dry-run", "--no-deps", "--no-index", "--find-links", str(wheels)]
    done = subprocess.run(
        [*command, "--report", "-", "-r", str(REQUIREMENTS)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise NotReadyError(_reason(kit, done.stderr.strip()))
    urls = [each["download_info"]["url"] for each in json.loads(done.stdout)["install"]]
    return [Path(unquote(urlparse(url).path)) for url in urls]


def _reason(kit: Path, error: str) -> str:
    if "No module named pip" in error:
        return f"{sys.executable} has no pip, which reads the kit's wheels: {sys.executable} -m ensurepip."
    made_for, here = json.loads((kit / MADE_FOR).read_text()), describe_interpreter()
    if made_for != here:
        return (
            f"The wheels in {kit / WHEELS} are for Python {made_for['python']} on {made_for['machine']}, but this is "
            f"Python {here['python']} on {here['machine']}: make gpu-kit PYTHON_VERSION={here['python']}, or choose "
            f"another interpreter with PYTHON=."
        )
    return f"The wheels in {kit / WHEELS} are not complete: make gpu-kit. ({error.splitlines()[-1]})"


def describe_interpreter() -> dict[str, str]:
    """Return what compiled wheels depend on: the version of Python and the processor."""
    return {"python": python_version(), "machine": platform.machine()}


def unpack(wheels: Sequence[Path], scratch: Path) -> None:
    """Unpack wheels into the folder that :func:`environment` puts on the path."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch / PACKAGES)


def environment(scratch: Path) -> dict[str, str]:
    """Return the environment of the parts: packages and source on the path, and its own caches of compilers.

    A run that is cut off may leave half a file in such a cache.
    """
    paths = [str(scratch / PACKAGES), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"), "TRITON_CACHE_DIR": str(scratch / "triton")}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    return os.environ | path | caches


def check_device(device: str, env: dict[str, str]) -> None:
    """Import what all parts import, and ask torch for the device, in another process.

    Raises:
        NotReadyError: if a package or the device is missing.
    """
    code = (
        "import sys\n"
        "from benchmarks.gpu.parts import machine\n"
        "from ddpm_kedro.errors import UserError\n"
        "from ddpm_kedro.hardware import choose_hardware\n"
        "try: choose_hardware(sys.argv[1], 'auto')\n"
        "except UserError as error: sys.exit(f'NotReady {error}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, device], env=env, cwd=ROOT, check=False, capture_output=True, text=True
    )
    if not done.returncode:
        return
    error = done.stderr.strip().splitlines()[-1]
    if error.startswith("NotReady "):
        raise NotReadyError(f"{error.removeprefix('NotReady ')} To try the kit without one: --device cpu --tiny.")
    if error.startswith("ModuleNotFoundError"):
        raise NotReadyError(f"{sys.executable} lacks a package that the parts need: make gpu-kit. ({error})")
    raise NotReadyError(f"The parts cannot start: {error}")


def check_images(kit: Path, parts: Sequence[Part], tiny: bool) -> Path | None:
    """Return the image pack; None if no part needs it, or in a tiny run without one.

    Raises:
        NotReadyError: if it is missing.
    """
    pack = kit / IMAGES
    if pack.is_file():
        return pack
    if needing := [] if tiny else [part.name for part in parts if part.images]:
        raise NotReadyError(
            f"The image pack {pack} is missing, which these parts need: {', '.join(needing)}. Make it with make "
            "gpu-kit, or name other parts with --parts."
        )
    return None
