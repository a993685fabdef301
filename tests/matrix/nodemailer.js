// Sends one e-mail as an application with Nodemailer does; prints the reply.
//
//     nodemailer.js PORT TEXT KEY SENT    (SENT is written: what Nodemailer made)
//     nodemailer.js                       (prints the version)

"use strict";

const fs = require("node:fs");
const { randomUUID } = require("node:crypto");
const nodemailer = require("nodemailer");

async function send(port, text, key, sent) {
  const mail = {
    from: "app@a.test",
    to: "ann@b.test",
    subject: key,
    text: fs.readFileSync(text, "utf8"),
    headers: { "X-Idempotency-Key": key },
    // What it would make up itself, lest the two below differ.
    messageId: `<${randomUUID()}@a.test>`,
    date: new Date(),
  };
  const toFile = nodemailer.createTransport({ streamTransport: true, buffer: true });
  const made = (await toFile.sendMail(mail)).message.toString("latin1");
  // Its SMTP connection sees to the ends of lines.
  fs.writeFileSync(sent, made.replace(/\r?\n/g, "\r\n"), "latin1");
  const transport = nodemailer.createTransport({ host: "127.0.0.1", port: Number(port), secure: false });
  console.log((await transport.sendMail(mail)).response);
  transport.close();
}

const [port, ...rest] = process.argv.slice(2);
if (port) {
  send(port, ...rest).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
} else {
  console.log(require("nodemailer/package.json").version);
}
