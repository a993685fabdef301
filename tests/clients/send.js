// Sends one e-mail over TLS with AUTH, as an application with Nodemailer does.
//
//     send.js starttls|implicit PORT CA USER PASSWORD KEY

"use strict";

const fs = require("node:fs");
const nodemailer = require("nodemailer");

const [mode, port, ca, user, pass, key] = process.argv.slice(2);
const transport = nodemailer.createTransport({
  host: "localhost",
  port: Number(port),
  secure: mode === "implicit",
  requireTLS: mode === "starttls",
  tls: { ca: fs.readFileSync(ca) },
  auth: { user, pass },
});
transport
  .sendMail({
    from: "app@a.test",
    to: "ann@b.test",
    subject: "hello",
    text: "hello",
    headers: { "X-Idempotency-Key": key },
  })
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  })
  .finally(() => transport.close());
