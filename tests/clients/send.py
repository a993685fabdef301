"""Sends one e-mail over TLS with AUTH, as an application with smtplib does.

    send.py starttls|implicit PORT CA USER PASSWORD KEY
"""

import smtplib
import ssl
import sys

mode, port, ca, user, password, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if mode == "implicit":
    client = smtplib.SMTP_SSL("localhost", int(port), timeout=30, context=context)
else:
    client = smtplib.SMTP("localhost", int(port), timeout=30)
    client.starttls(context=context)
with client:
    try:
        client.login(user, password)
    except smtplib.SMTPAuthenticationError as error:
        sys.exit(f"{error.smtp_code} {error.smtp_error.decode()}")
    mail = f"From: app@a.test\r\nTo: ann@b.test\r\nSubject: hello\r\nX-Idempotency-Key: {key}\r\n\r\nhello\r\n"
    client.sendmail("app@a.test", ["ann@b.test"], mail)
