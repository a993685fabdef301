//! A client for the admin address: one request, one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::DEADLINE;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The head as it came.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks, with whatever header lines are wanted, and reads to the end.
pub fn ask(address: SocketAddr, request: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = open(address, request, headers, body);
    let (status, head, chunked) = read_head(&mut stream);
    let mut bytes = Vec::new();
    if chunked {
        while let Some(mut chunk) = read_chunk(&mut stream) {
            bytes.append(&mut chunk);
        }
    } else {
        stream.read_to_end(&mut bytes).expect("no whole body in time");
    }
    Answer { status, head, body: String::from_utf8(bytes).unwrap() }
}

/// Server-sent events, as they come.
#[derive(Debug)]
pub struct Events {
    stream: BufReader<TcpStream>,
    text: String,
}

impl Events {
    /// Returns when every later event will be heard.
    pub fn open(address: SocketAddr, request: &str, headers: &[&str]) -> Self {
        let mut stream = open(address, request, headers, "");
        let (status, head, chunked) = read_head(&mut stream);
        assert!(status == 200 && chunked, "{head}");
        Self { stream, text: String::new() }
    }

    /// The next event's data; `None` at the end.
    pub fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.strip_prefix("data: ").map(str::to_owned);
                self.text = rest.to_owned();
                match data {
                    Some(data) => return Some(data),
                    None => continue,
                }
            }
            let chunk = read_chunk(&mut self.stream)?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

/// Sends a request and reads nothing.
pub fn open(address: SocketAddr, request: &str, headers: &[&str], body: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("nobody listens");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: admin.test\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    BufReader::new(stream)
}

fn read_head(stream: &mut impl BufRead) -> (u16, String, bool) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("no answer in time") > 0, "no whole head: {head}");
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, head, chunked)
}

/// One chunk; `None` at the last, or where the connection has ended.
fn read_chunk(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    if stream.read_line(&mut line).expect("no chunk in time") == 0 {
        return None;
    }
    let length = usize::from_str_radix(line.trim(), 16).expect("the length of a chunk");
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk).expect("no whole chunk in time");
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}
