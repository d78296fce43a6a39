#!/bin/sh
# `make test` on every supported Python that can be found here, but the one that PYTHON names: that is what
# `make test` itself is for. Says which were not found. Looks in PATH, and where pyenv and uv keep theirs.
set -eu
cd "$(dirname "$0")/.."
supported=$(sed -n 's/.*Python :: \(3\.[0-9]*\)",/\1/p' pyproject.toml)
usual=$("${PYTHON:-python3}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
passed='' failed='' missing=''

find_python() { # version
    for candidate in "$(command -v "python$1")" "$HOME/.pyenv/versions/$1".*/bin/python \
        "$HOME/.local/share/uv/python/cpython-$1".*/bin/python; do
        # It may be a shim that only says that there is none.
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

for version in $supported; do
    [ "$version" != "$usual" ] || continue
    if ! python=$(find_python "$version"); then
        missing="$missing $version"
    elif make --no-print-directory test PYTHON="$python" VENV="build/python$version"; then
        passed="$passed $version"
    else
        failed="$failed $version"
    fi
done
echo "Python versions: passed:${passed:- none}; failed:${failed:- none}; not found here:${missing:- none}"
[ -z "$failed" ]
