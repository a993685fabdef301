"""Lets COUNT processes send the same e-mail at the same moment, as the workers
of a task queue do that were all given one task. Each builds the e-mail
itself, so each has its own Message-ID and Date. Prints what each heard.

    at_once.py HOST PORT COUNT smtplib|django
"""

import multiprocessing
import smtplib
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid


def with_smtplib(host: str, port: int, start) -> str:
    message = EmailMessage()
    message["From"] = "app@example.com"
    message["To"] = "user@example.com"
    message["Subject"] = "Your order 1042 – thank you"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="example.com")
    message.set_content("Thank you for your order 1042.\n\nIt leaves us tomorrow – free of charge.\n")
    with smtplib.SMTP(host, port, timeout=30) as server:
        server.ehlo()
        start.wait()
        server.mail("app@example.com")
        server.rcpt("user@example.com")
        code, text = server.data(message.as_bytes())
    return f"{code} {text.decode()}"


def with_django(host: str, port: int, start) -> str:
    import django_mail
    from django.core.mail import get_connection

    connection = get_connection()
    connection.open()
    start.wait()
    sent = django_mail.build("t0ken", {}, connection).send()
    connection.close()
    return f"sent {sent}"


def work(send, host: str, port: int, start, answers) -> None:
    try:
        answers.put(send(host, port, start))
    except Exception as error:  # The other processes must not wait for this one.
        start.abort()
        answers.put(f"failed: {error!r}")


if __name__ == "__main__":
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    send = {"smtplib": with_smtplib, "django": with_django}[sys.argv[4]]
    if send is with_django:
        import django_mail

        django_mail.configure(host, port)
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(count, timeout=25), context.SimpleQueue()
    workers = [context.Process(target=work, args=(send, host, port, start, answers)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for _ in workers:
        print(answers.get())
    for worker in workers:
        worker.join()
