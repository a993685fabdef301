"""Sends one message to its To and to its Cc in a transaction each, as
programs do that give each recipient a transaction of its own: the same
Message-ID and the same key both times. Prints what was answered.

    to_and_cc.py HOST PORT KEY
"""

import smtplib
import sys
from email.message import EmailMessage

message = EmailMessage()
message["From"] = "app@example.com"
message["To"] = "to@example.com"
message["Cc"] = "cc@example.com"
message["Subject"] = "Minutes of the meeting"
message["Message-ID"] = f"<{sys.argv[3]}@example.com>"
message["X-Idempotency-Key"] = sys.argv[3]
message.set_content("All were present.\n")

with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=30) as server:
    for recipient in ["to@example.com", "cc@example.com"]:
        server.ehlo_or_helo_if_needed()
        server.mail("app@example.com")
        server.rcpt(recipient)
        code, text = server.data(message.as_bytes())
        print(recipient, code, text.decode())
