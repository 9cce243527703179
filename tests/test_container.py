"""The container: built, and run offline by its user without rights. Needs docker or podman.

CONTAINER_BUILD_FLAGS are added to the build, such as "--build-arg TORCH_INDEX=…".
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from git_model.cli.main import main

ROOT = Path(__file__).parent.parent
IMAGE = "git-model-test"


def output(*command: str) -> str:
    """What a command prints; its errors, if it fails."""
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, f"{shlex.join(command)}: {result.stderr[-2000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def engine() -> str:
    """An engine that works, with the image built."""
    for name in ("docker", "podman"):
        works = shutil.which(name) and not subprocess.call(
            [name, "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if works:
            flags = shlex.split(os.environ.get("CONTAINER_BUILD_FLAGS", ""))
            output(name, "build", *flags, "--tag", IMAGE, str(ROOT))
            return name
    pytest.skip("neither docker nor podman works here")


def fill_cache(cache: Path) -> str:
    """The built-in model in Hugging Face's format, as in the hub's cache; its id."""
    repository, commit = cache / "hub" / "models--shapes--demo", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder = repository / "snapshots" / commit
    result = CliRunner().invoke(main, ["convert", "demo", str(folder), "--to", "hf"])
    assert result.exit_code == 0, result.output
    for path in (cache, *cache.rglob("*/")):
        path.chmod(0o777)
    return "shapes/demo"


@pytest.mark.slow
def test_the_container_captions_offline_as_a_user_without_rights(
    engine: str, tmp_path: Path
) -> None:
    cache, work = tmp_path / "cache", ROOT / "examples" / "images"
    name = fill_cache(cache)
    mounts = [f"--volume={cache}:/cache", f"--volume={work}:/work:ro"]
    run = [engine, "run", "--rm", "--network=none", *mounts]
    for model in ("demo", name):
        line = output(*run, IMAGE, "caption", "five_shapes.png", "--model", model)
        assert "two green stars and three purple triangles" in line
    assert output(*run, "--entrypoint=id", IMAGE, "-u").strip() == "1000"
    assert output(*run, IMAGE, "--version").startswith("git-model")
