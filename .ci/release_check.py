"""Build the wheel and the sdist, and check that each works where this repository is not.

    make release-check

Each is installed into a new environment, with the versions of constraints.txt. From there run the
command `git-model`, the demo, mypy over a program that uses the public names, and tests: with the
wheel all but the slow ones and those that read this repository's own files, with the sdist those of
the network and its searches. Metadata, size and files are checked. Takes some fifteen minutes.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_WHEEL = 6 * 2**20  # bytes
PACKAGES = ("git_model/", "weights_convert/")
CORE_TESTS = (
    "tests/model",
    "tests/generation",
    "tests/weights_convert",
    "tests/test_public_api.py",
)
# What is about the repository, not about the package. `make test` and `make lint` run these.
OWN_TESTS = ("tests/docs", "tests/test_structure.py", "tests/test_wheel.py")
PROGRAM = """
from git_model import Captioner, DecodingOptions

captioner = Captioner.from_pretrained("demo")
scene = captioner.see("image.png")
text: str = captioner.caption(scene, DecodingOptions(num_beams=4)).text
answers: list[str] = [answer.text for answer in captioner.ask(scene, ["how many?"])]
"""


def run(*command: object, cwd: Path) -> None:
    """Run a command to its end, or end here with its output."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def check_wheel(wheel: Path) -> None:
    """Its size, and that nothing but the two packages lands in site-packages."""
    size = wheel.stat().st_size
    if size > MAX_WHEEL:
        sys.exit(f"{wheel.name}: {size:,} bytes, expected at most {MAX_WHEEL:,}")
    with zipfile.ZipFile(wheel) as archive:
        strays = [
            name
            for name in archive.namelist()
            if not name.startswith(PACKAGES) and ".dist-info/" not in name
        ]
    if strays:
        sys.exit(f"{wheel.name}: files outside the packages: {', '.join(strays[:5])}")
    print(f"{wheel.name}: {size / 2**20:.1f} MiB, only the two packages")


def check_installed(artifact: Path, sources: Path, folder: Path, tests: Sequence[str]) -> None:
    """Install an artifact into a new environment, and use it from an empty folder."""
    venv.create(folder / "env", with_pip=True)
    binaries = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    python = binaries / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    run(*install, f"{artifact}[test]", cwd=folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run(binaries / "git-model", "--version", cwd=elsewhere)
    image = sources / "examples" / "images" / "five_shapes.png"
    run(binaries / "git-model", "caption", image, "--model", "demo", cwd=elsewhere)
    run(python, sources / "examples" / "five_tasks.py", cwd=elsewhere)
    (elsewhere / "program.py").write_text(PROGRAM)
    run(binaries / "mypy", "--strict", "program.py", cwd=elsewhere)
    run(python, "-m", "pytest", "-q", *tests, cwd=sources)


def main() -> None:
    """Build and check both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "hatchling", "build", "-d", folder / "dist", cwd=ROOT)
        (wheel,), (sdist,) = folder.glob("dist/*.whl"), folder.glob("dist/*.tar.gz")
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=folder)
        check_wheel(wheel)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        sources = folder / sdist.name.removesuffix(".tar.gz")
        for package in PACKAGES:  # so that tests import what was installed
            shutil.rmtree(sources / package)
        all_tests = [f"--ignore={path}" for path in OWN_TESTS]
        for artifact, tests in ((wheel, all_tests), (sdist, CORE_TESTS)):
            own_folder = folder / artifact.suffix.strip(".")
            own_folder.mkdir()
            check_installed(artifact, sources, own_folder, tests)
    print("both work")


if __name__ == "__main__":
    main()
