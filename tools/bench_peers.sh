#!/bin/sh
# Install what `make bench` compares Towline with: Debian packages (by apt-get, as root or through sudo) and Python
# packages (into the environment of the given interpreter). What can't be installed is left out of the comparison;
# nothing here stops the bench. No service is left running: the bench starts its own, with its own configuration.
#
# usage: tools/bench_peers.sh PYTHON
python=${1:?usage: tools/bench_peers.sh PYTHON}
here=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin

wanted=""
need() { command -v "$1" >/dev/null 2>&1 || wanted="$wanted $2"; }
need ssh openssh-client
need sshd openssh-server
need rsync rsync
need nginx nginx-light
need curl curl
need openssl openssl
need iperf3 iperf3
need redis-server redis-server

if [ -n "$wanted" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    echo "bench: installing$wanted"
    # policy-rc.d keeps packages from starting their daemons; it goes away again below.
    policy=/usr/sbin/policy-rc.d
    made=""
    if [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null 2>&1; then
        $as_root chmod 755 "$policy"
        made=yes
    fi
    $as_root apt-get update -qq || true
    for package in $wanted; do
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            echo "bench: $package can't be installed; its peer is left out"
    done
    [ -z "$made" ] || $as_root rm -f "$policy"
fi

while read -r package; do
    case $package in '' | '#'*) continue ;; esac
    "$python" -m pip install --quiet --disable-pip-version-check "$package" ||
        echo "bench: $package can't be installed; its peer is left out"
done <"$here/../bench/requirements.txt"
exit 0
