// Sends one e-mail as an application with Nodemailer does.
//
//     nodemailer.js HOST PORT TOKEN

"use strict";

const nodemailer = require("nodemailer");

const LOGO =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
const [host, port, token] = process.argv.slice(2);
const link = `https://shop.example.com/reset/${token}/`;

const transport = nodemailer.createTransport({ host, port: Number(port), secure: false, ignoreTLS: true });
transport
  .sendMail({
    from: { name: "Café Exämple", address: "app@example.com" },
    to: "user@example.com",
    subject: "Café Exämple: choose a new password ✓",
    text: `Hello,\n\nNaïve question: was it you who asked for a new password? Then follow this link:\n\n    ${link}\n`,
    html: `<p><img src="cid:logo" alt="Café Exämple"></p>\n<p><a href="${link}">Choose a new password</a> – or don't.</p>\n`,
    attachments: [
      { filename: "logo.png", content: LOGO, encoding: "base64", cid: "logo" },
      { filename: "résumé.pdf", content: Buffer.from("%PDF-1.4\nnot really one\n") },
    ],
  })
  .then((sent) => console.log(sent.response))
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  })
  .finally(() => transport.close());
