"""Sends one e-mail as a Django application does: a template for each part,
EmailMultiAlternatives, the SMTP backend.

    django_mail.py HOST PORT TOKEN [FIELD=VALUE]...
"""

import sys
from base64 import b64decode
from email.mime.image import MIMEImage

import django
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.template.loader import render_to_string

TEXT = """Hello,

someone asked for a new password for {{ shop }}. Naïve question: was it you?
Then follow this link:

    https://shop.example.com/reset/{{ token }}/

The link is good for one hour. – {{ shop }}
"""
HTML = """<html><body><p><img src="cid:logo" alt="{{ shop }}"></p>
<p>Someone asked for a new password for <b>{{ shop }}</b>. Naïve question: was it you?</p>
<p><a href="https://shop.example.com/reset/{{ token }}/">Choose a new password</a></p>
</body></html>
"""
TEMPLATES = {"reset.txt": TEXT, "reset.html": HTML}
LOGO = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def configure(host: str, port: int) -> None:
    loaders = [("django.template.loaders.locmem.Loader", TEMPLATES)]
    settings.configure(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_HOST=host,
        EMAIL_PORT=port,
        EMAIL_TIMEOUT=30,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": loaders}}],
    )
    django.setup()


def build(token: str, headers: dict[str, str], connection=None) -> EmailMultiAlternatives:
    context = {"shop": "Café Exämple", "token": token}
    message = EmailMultiAlternatives(
        subject="Café Exämple: choose a new password ✓",
        body=render_to_string("reset.txt", context),
        from_email="Café Exämple <app@example.com>",
        to=["user@example.com"],
        headers=headers,
        connection=connection or get_connection(),
    )
    message.attach_alternative(render_to_string("reset.html", context), "text/html")
    message.mixed_subtype = "related"
    logo = MIMEImage(LOGO, "png")
    logo.add_header("Content-ID", "<logo>")
    logo.add_header("Content-Disposition", "inline", filename="logo.png")
    message.attach(logo)
    message.attach("résumé.pdf", b"%PDF-1.4\nnot really one\n", "application/pdf")
    return message


if __name__ == "__main__":
    host, port, token = sys.argv[1:4]
    configure(host, int(port))
    build(token, dict(field.split("=", 1) for field in sys.argv[4:])).send()
