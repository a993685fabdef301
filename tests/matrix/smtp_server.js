// A server of smtp-server, keeping each message in a file of a directory.
//
//     smtp_server.js DIRECTORY    (prints its version and its address)

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { SMTPServer } = require("smtp-server");

const directory = process.argv[2];
let number = 0;

const server = new SMTPServer({
  name: "upstream.test",
  disabledCommands: ["AUTH", "STARTTLS"],
  onData(stream, session, done) {
    number += 1;
    const name = `${number}.eml`;
    const unfinished = path.join(directory, `${name}.unfinished`);
    const file = fs.createWriteStream(unfinished);
    file.on("finish", () => {
      fs.renameSync(unfinished, path.join(directory, name));
      done(null, `OK: kept as smtp-server-${name}`);
    });
    file.on("error", done);
    stream.pipe(file);
  },
});
server.listen(0, "127.0.0.1", () => {
  const { version } = require("smtp-server/package.json");
  console.log(`${version} 127.0.0.1:${server.server.address().port}`);
});
