"""Print the versions of everything that the extra `test` needs, as this environment has them.

    make constraints

The file is used by `make test`, so that next year's run installs what passed today.
"""

from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = "# What the tests passed with; `make constraints` writes this, `make test` installs it."


def main() -> None:
    """Walk the requirements from the package's extra."""
    seen: set[tuple[str, str]] = set()
    versions: dict[str, str] = {}
    open_requirements = [Requirement("git-model[test]")]
    while open_requirements:
        requirement = open_requirements.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                package = distribution(name)
            except PackageNotFoundError:  # for another platform or version of Python
                continue
            versions[name] = package.version.partition("+")[0]
            for line in package.requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    open_requirements.append(needed)
    del versions["git-model"]
    print("\n".join([HEAD, *(f"{name}=={version}" for name, version in sorted(versions.items()))]))


if __name__ == "__main__":
    main()
