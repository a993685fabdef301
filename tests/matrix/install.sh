#!/usr/bin/env bash
# Puts Exim and OpenSMTPD into target/servers. As Debian packages they can't
# stand beside Postfix, so they are fetched and unpacked only; nothing of them
# is installed but the libraries that they want. A stamp makes a second run
# cost nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=(exim4-base exim4-daemon-light opensmtpd)
into=$PWD/target/servers
stamp=$into/stamp
want=$(cksum <tests/matrix/install.sh)
wanting() { LC_ALL=C ldd "$into/usr/sbin/exim4" "$into/usr/sbin/smtpd" | sed -n 's/ => not found//p' | tr -d '\t'; }
if [[ -f $stamp && $(<"$stamp") == "$want" && -z $(wanting) ]]; then
    exit 0
fi

rm -rf "$into"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt fetches as a user of its own.
chmod 755 "$work"
if ((EUID == 0)) && id _apt >/dev/null 2>&1; then chown _apt "$work"; fi
fetch() { (cd "$work" && apt-get download -qq "${packages[@]}"); }
# The lists may be missing, or older than what the archive holds now.
fetch 2>/dev/null || { ((EUID == 0)) && apt-get update -qq; fetch; }
mkdir -p "$into"
for package in "$work"/*.deb; do
    dpkg-deb --extract "$package" "$into"
done
# Nobody shall become root with it; apart.sh has its own way.
chmod u-s "$into/usr/sbin/exim4"

if [[ -n $(wanting) ]]; then
    mapfile -t libraries < <(apt-cache depends --important "${packages[@]}" | sed -n 's/^ *Depends: \(lib.*\)/\1/p' | sort -u)
    if ((EUID != 0)); then
        echo "missing for Exim and OpenSMTPD: $(wanting | xargs); install with: sudo apt-get install ${libraries[*]}" >&2
        exit 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${libraries[@]}"
fi
echo "$want" >"$stamp"
