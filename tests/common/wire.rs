//! Replies out and content in, as the scripted upstream does it.

use std::io::{self, BufRead, Write};
use std::net::TcpStream;

/// Writes a reply whose lines are separated by LF; the code comes from the
/// first.
pub fn say(mut stream: &TcpStream, reply: &str) -> io::Result<String> {
    let (code, text) = reply.split_at(4.min(reply.len()));
    let lines: Vec<&str> = text.split('\n').collect();
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let code = if index + 1 < lines.len() { code.replace(' ', "-") } else { code.to_owned() };
        out.push_str(&format!("{code}{line}\r\n"));
    }
    stream.write_all(out.as_bytes())?;
    Ok(reply.to_owned())
}

/// The content up to CRLF.CRLF, dots taken away.
pub fn read_dots(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.as_slice() {
            b".\r\n" if content.is_empty() || content.ends_with(b"\r\n") => return Ok(content),
            [b'.', rest @ ..] => content.extend_from_slice(rest),
            line => content.extend_from_slice(line),
        }
    }
}
