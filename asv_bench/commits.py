"""Build a commit beside this checkout, to measure it with this checkout's benchmarks."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A line of gcc, Cython, Python or pip; not pip's remark that some other program failed.
_ERROR = re.compile(r"^.*?error: (?!subprocess-exited).*$", re.IGNORECASE | re.MULTILINE)


class BuildError(RuntimeError):
    """A commit does not build; the message is the first error."""


def git(*arguments: str, repository: Path = ROOT) -> str:
    """Run git and return what it prints.

    Raises
    ------
    RuntimeError
        It fails; the message is its own.
    """
    command = ["git", "-C", str(repository), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def built(commit: str, repository: Path = ROOT) -> Iterator[Path]:
    """Build `commit` with this machine's toolchain; give the folder that Python finds it in.

    Raises
    ------
    BuildError
        The commit does not build.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, site = Path(folder, "source"), Path(folder, "site")
        git("worktree", "add", "--detach", str(source), commit, repository=repository)
        try:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            command += ["--no-build-isolation", "--target", str(site), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode < 0:  # by a signal: that says nothing of the commit
                raise RuntimeError(f"the build of {commit} was interrupted")
            if done.returncode:
                said = done.stderr.replace(str(source), ".")
                error = _ERROR.search(said)
                raise BuildError(error[0].strip() if error else f"pip: {done.returncode}")
            yield site
        finally:
            git("worktree", "remove", "--force", str(source), repository=repository)
