#!/usr/bin/env bash
# Test the wheel in dist/ on the Python of another Debian, as root:
#
#     wheels/debian.sh trixie python3.13 tests/test_literals.py ...
#     wheels/debian.sh sid python3.14 tests
#
# Only packages are unpacked, into build/debian/SUITE, and nothing of them is installed: they
# serve to start one program. What pip would install is put beside them by this system's pip.
# sid is Debian's unstable branch: what it holds changes daily.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=$1 python=$2
root=$PWD/build/debian/$suite-$python
version=${python#python}
if [[ ! -e $root ]]; then
    mkdir -p build/debian
    # The list of packages may be as old as the mirror that it is from.
    mmdebstrap --quiet --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
        --include="base-files,libstdc++6,$python" "$suite" "$root"
fi
rm -rf "$root/opt/site" "$root/opt/source"
mkdir -p "$root/opt/source" "$root/proc"
.venv/bin/python -m pip install --quiet --target "$root/opt/site" --python-version "$version" \
    --implementation cp --abi "cp${version/./}" --abi abi3 --abi none \
    --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 --only-binary :all: \
    numpy ml_dtypes pip setuptools pytest hypothesis pytest-timeout dist/cropkit-*.whl
cp -r tests pyproject.toml "$root/opt/source"

# /proc is mounted where nobody else sees it, and gone with the shell.
export PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1
unshare --mount bash -c 'mount --rbind /proc "$1/proc"; exec chroot "$@"' -- "$root" "$python" -c '
import os, sys
os.chdir("/opt/source")
import cropkit, pytest
cropkit.show_runtime(sys.stdout)
sys.exit(pytest.main(sys.argv[1:]))' -p tests.support.no_skips -p no:cacheprovider \
    -m 'not (oracle or frameworks or large or build or gpu)' "${@:3}"
