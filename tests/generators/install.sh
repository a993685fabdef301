#!/usr/bin/env bash
# Puts Django, Nodemailer and what else Python and Node.js have for e-mail, in
# the versions that are written beside this file, into target/generators. A
# stamp makes a second run cost nothing.
set -euo pipefail
cd "$(dirname "$0")"
into="$(cd ../.. && pwd)/target/generators"
stamp="$into/stamp"
want=$(cat requirements.txt package.json install.sh | cksum)
if [[ -f $stamp && $(<"$stamp") == "$want" && -x $into/python/bin/python ]]; then
    exit 0
fi

rm -rf "$into"
mkdir -p "$into/node"
python3 -m venv "$into/python"
"$into/python/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check -r requirements.txt
cp package.json "$into/node/"
npm install --prefix "$into/node" --silent --no-package-lock --no-audit --no-fund --ignore-scripts
echo "$want" >"$stamp"
