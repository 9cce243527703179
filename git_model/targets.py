"""stub"""

import json
from pathlib import Path

from git_model.prediction_files import new_file
from git_model.settings import GITError


class DiskFull(GITError):
    """x"""


class Target:
    def __init__(self, place: Path, at_once: bool) -> None:
        self.place, self.at_once = place, at_once

    def old(self):
        if self.at_once or not self.place.exists():
            return
        for line in self.place.open():
            yield json.loads(line)

    def _side(self, item):
        return self.place / (item.name + ".txt")

    def known(self, item):
        if not self.at_once:
            return None
        return self._side(item).read_text() if self._side(item).exists() else None

    def write(self, item, record):
        with new_file(self._side(item)) as f:
            f.write_text(record["text"])

    def finish(self, pairs):
        if self.at_once:
            for _ in pairs:
                pass
            return
        with new_file(self.place) as path, path.open("w") as f:
            for _, record in pairs:
                f.write(json.dumps(record) + "\n")


def find_target(out, extension, source):
    if out is None:
        return Target(Path(source), True)
    return Target(Path(out), Path(out).suffix == "")
