#!/bin/sh
# Installs the named Debian packages where they are missing and where this may be done (root, apt-get).
# Elsewhere it says in one line what is missing, and succeeds: the tests that need it say so themselves.
set -eu

missing=""
for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "not installed (needs root on Debian or Ubuntu), what rests on it is skipped:$missing" >&2
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt() {
    apt-get --quiet --quiet --option DPkg::Lock::Timeout=300 --option Acquire::Retries=5 "$@"
}
echo "installing:$missing" >&2
attempt=1
# shellcheck disable=SC2086  # a list of names
until apt update >&2 && apt install --yes --no-install-recommends $missing >&2 </dev/null; do
    [ "$attempt" -lt 3 ] || exit 1
    attempt=$((attempt + 1))
    echo "apt did not finish; attempt $attempt of 3" >&2
    sleep 10
done
