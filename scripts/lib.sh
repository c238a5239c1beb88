# Shared by scripts/demo and scripts/test (POSIX sh): a virtual environment, and what it needs.

say() { echo "==> $*" >&2; }
fail() { echo "$(basename "$0"): $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

# need PROGRAM:PACKAGE... installs the Debian packages of the programs that are missing, as root;
# else prints the command that does, and fails.
need() {
  missing=
  for pair in "$@"; do
    have "${pair%%:*}" || missing="$missing ${pair#*:}"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ] || ! have apt-get; then
    fail "missing:$missing. Install them, on Debian with: sudo apt-get install$missing"
  fi
  say "installing$missing"
  log=$(mktemp)
  # shellcheck disable=SC2086  # a list of words
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive \
      apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    fail "apt-get could not install$missing"
  fi
  rm -f "$log"
}

# find_python: prints a Python >= 3.9 ($PYTHON, or python3)
find_python() {
  python=${PYTHON:-python3}
  have "$python" || fail "$python was not found; install Python 3.9 or later, or set PYTHON"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    fail "$python is older than 3.9; set PYTHON to a later one"
  echo "$python"
}

# make_venv DIRECTORY PYTHON PIP-ARGUMENT...: an environment with the project installed; done again
# only when pyproject.toml or the arguments have changed.
make_venv() {
  directory=$1 python=$2
  shift 2
  stamp=$(printf '%s\n' "$*" | cat - pyproject.toml | cksum)
  [ "$(cat "$directory/installed" 2>/dev/null)" = "$stamp" ] && return 0
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian keeps the venv module in a package of its own, named after the version.
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    need "no-ensurepip-yet:python$version-venv"
  fi
  say "installing holdfast into $directory"
  [ -x "$directory/bin/python" ] || "$python" -m venv "$directory"
  "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
    fail "pip could not install the project"
  echo "$stamp" >"$directory/installed"
}
