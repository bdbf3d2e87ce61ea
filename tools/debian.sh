#!/bin/sh
# Installs the Debian packages that some tests use; Towline itself, its demo and all other tests need none of them. Without these packages the tests that want them are skipped, and their reason names this script.
#
#   sh tools/debian.sh                  install what is missing; needs root
#   sh tools/debian.sh --if-possible    the same where we are root and apt is there; otherwise say so and go on
#
#   tmux      a real terminal around full-screen verbs
#   vim, htop full-screen programs whose screens are compared
#   tshark    reads captures, and loads the dissector that `tow lab` writes
#
# The peers of the benchmarks are installed by tools/bench_peers.sh.
set -u

wanted="tmux:tmux vim:vim htop:htop tshark:tshark"
PATH="$PATH:/usr/sbin:/sbin"

missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not installed here:$missing. Tests that need them are skipped; as root: sh tools/debian.sh" >&2
    [ "${1:-}" = --if-possible ] && exit 0
    exit 1
fi

echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive # tshark would ask who may capture; the answer stays no
# A package that starts a service would do so; nothing here needs one running.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
# shellcheck disable=SC2086
if apt-get update -qq && apt-get install -qq -y --no-install-recommends $missing >/dev/null; then
    exit 0
fi
echo "The packages could not be installed; tests that need them are skipped." >&2
[ "${1:-}" = --if-possible ] && exit 0
exit 1
