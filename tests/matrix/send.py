"""Sends one e-mail as an application in Python does.

    send.py smtplib|aiosmtplib PORT FILE
    send.py django PORT TEXT KEY SENT    (SENT is written: what Django made)
    send.py smtplib|aiosmtplib|django    (prints the version)
"""

import sys
from pathlib import Path

SENDER, RECIPIENT = "app@a.test", "ann@b.test"


def smtplib_version() -> str:
    return sys.version.split()[0]


def smtplib_send(port: int, file: str) -> None:
    import smtplib

    with smtplib.SMTP("127.0.0.1", port, timeout=30) as server:
        # It tells the reply in no other way.
        server.set_debuglevel(1)
        server.sendmail(SENDER, [RECIPIENT], Path(file).read_bytes(), ["BODY=8BITMIME"])


def aiosmtplib_version() -> str:
    import aiosmtplib

    return aiosmtplib.__version__


def aiosmtplib_send(port: int, file: str) -> None:
    import asyncio

    import aiosmtplib

    mail = Path(file).read_bytes()
    sending = aiosmtplib.send(
        mail, sender=SENDER, recipients=[RECIPIENT], hostname="127.0.0.1", port=port, mail_options=["BODY=8BITMIME"]
    )
    errors, reply = asyncio.run(sending)
    assert not errors, errors
    print(reply)


def django_version() -> str:
    import django

    return django.__version__


def django_send(port: int, text: str, key: str, sent: str) -> None:
    import django
    from django.conf import settings
    from django.core.mail import EmailMessage

    class Kept(EmailMessage):
        """One that keeps what is made of it."""

        def message(self):
            made = super().message()
            Path(sent).write_bytes(made.as_bytes(linesep="\r\n"))
            return made

    backend = "django.core.mail.backends.smtp.EmailBackend"
    settings.configure(EMAIL_BACKEND=backend, EMAIL_HOST="127.0.0.1", EMAIL_PORT=port, EMAIL_TIMEOUT=30)
    django.setup()
    body = Path(text).read_text(encoding="utf-8")
    assert Kept(key, body, SENDER, [RECIPIENT], headers={"X-Idempotency-Key": key}).send() == 1


if __name__ == "__main__":
    library, *rest = sys.argv[1:]
    if rest:
        globals()[f"{library}_send"](int(rest[0]), *rest[1:])
    else:
        print(globals()[f"{library}_version"]())
