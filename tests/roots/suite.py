"""Which systems there are, and where this machine's own settings of apt reach their packages."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

HELPER = "/usr/lib/apt/apt-helper"


@dataclass(frozen=True)
class Suite:
    """A release: its code name, what people call it, and the archive's folder of its family."""

    code: str
    title: str
    family: str


SUITES = (
    Suite("bookworm", "Debian 12", "debian"),
    Suite("trixie", "Debian 13", "debian"),
    Suite("noble", "Ubuntu 24.04", "ubuntu"),
)


def sites() -> list[str]:
    """Return the archives that apt is set to use here, in its order."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    return list(dict.fromkeys(listed.stdout.split()))


def archive_of(suite: Suite, folder: Path) -> str:
    """Return the archive that has a suite, "" when none of this machine's has it.

    Asked for with apt's own program, so with its proxies and rights; beside each archive that is in
    use, the one of the other family in the same place is asked, too.
    """
    candidates = []
    for site in sites():
        place, _, family = site.rstrip("/").rpartition("/")
        if family in ("debian", "ubuntu"):
            candidates += [f"{place}/{suite.family}"]
    for archive in dict.fromkeys(candidates):
        if _has(f"{archive}/dists/{suite.code}/InRelease", folder / "InRelease"):
            return archive
    return ""


def security_of(suite: Suite, folder: Path) -> str:
    """Return the archive of a suite's security updates, "" when it is not among this machine's."""
    for site in sites():
        if "security" in site and _has(
            f"{site}/dists/{suite.code}-security/InRelease", folder / "InRelease"
        ):
            return site
    return ""


def _has(url: str, target: Path) -> bool:
    target.unlink(missing_ok=True)
    try:
        asked = subprocess.run(
            [HELPER, "-o", "Acquire::Retries=1", "download-file", url, str(target)],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0 and target.exists() and target.stat().st_size > 0
