#!/usr/bin/env bash
# Writes tests/golden again: for each generator first.eml and again.eml, one
# e-mail built at two times, and other.eml, the same with another token; all as
# they came in over SMTP. Then write the fingerprints:
#
#     UPDATE_GOLDEN=1 cargo test --test golden
#
# Wants root (for a host name that is not this machine's, as some generators
# put it into the Message-ID) and, beside what ./test installs:
#
#     apt-get install ruby-actionmailer libmail-java default-jdk-headless
set -euo pipefail
cd "$(dirname "$0")/../.."
if [[ ${1-} != named ]]; then
    cargo build
    exec unshare --uts "$0" named
fi
hostname app.example.com

here=tests/generators
generators=target/generators
jars=/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar
send() { # NAME PORT TOKEN
    case $1 in
    django) "$generators/python/bin/python" "$here/django_mail.py" 127.0.0.1 "$2" "$3" ;;
    nodemailer) NODE_PATH=$generators/node/node_modules node "$here/nodemailer.js" 127.0.0.1 "$2" "$3" ;;
    phpmailer) php "$here/phpmailer.php" 127.0.0.1 "$2" "$3" ;;
    javamail) java -Dfile.encoding=UTF-8 -Duser.name=app -cp "$jars" "$here/JavaMail.java" 127.0.0.1 "$2" "$3" ;;
    actionmailer) LC_ALL=C.UTF-8 ruby "$here/actionmailer.rb" 127.0.0.1 "$2" "$3" ;;
    esac
}

work=$(mktemp -d)
mkfifo "$work/said"
target/debug/mailonce sink --listen 127.0.0.1:0 --dir "$work/mail" >"$work/said" &
sink=$!
trap 'kill $sink; rm -rf "$work"' EXIT
exec 3<"$work/said"
read -r _ _ address <&3
port=${address##*:}

number=0
for generator in django nodemailer phpmailer javamail actionmailer; do
    mkdir -p "tests/golden/$generator"
    for name in first:t0ken again:t0ken other:an0ther; do
        send "$generator" "$port" "${name#*:}" >/dev/null
        read -r _ <&3
        number=$((number + 1))
        cp "$(printf '%s/mail/%06d.eml' "$work" $number)" "tests/golden/$generator/${name%:*}.eml"
        # The date is in whole seconds.
        sleep 1.1
    done
done
