"""What is built and installed elsewhere works without the repository."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the built wheel was unpacked by pip."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(folder / "site"),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "site"


def run(installed: Path, *arguments: str) -> str:
    """A command in an empty folder, with the installed package before any other."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_packages_and_the_configurations_come_from_the_wheel(installed: Path) -> None:
    code = """
import json, git_model, weights_convert
from git_model.config import config_folder, named_config
print(json.dumps([git_model.__file__, weights_convert.__file__, str(config_folder())]))
assert named_config("git_large").encoder.layers == 24
"""
    for place in json.loads(run(installed, "-c", code)):
        assert Path(place).is_relative_to(installed)


def test_the_installed_command_captions_with_the_built_in_model(installed: Path) -> None:
    image = sorted((ROOT / "examples" / "images").glob("*.png"))[0]
    line = run(installed, "-m", "git_model", "caption", "--model", "demo", "--json", str(image))
    assert json.loads(line)["caption"].startswith("a ")
