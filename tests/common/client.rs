//! A client that sends what it is told and reads whole replies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{DEADLINE, Mail};

/// A connection to the proxy.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects without reading anything.
    pub fn raw(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("nobody listens"))
    }

    /// The same from an address of ours, over IPv4.
    pub fn raw_from(source: [u8; 4], address: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((source, 0))).unwrap();
        connect(&socket, &address).expect("nobody listens");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Connects, hears the greeting and says EHLO.
    pub fn hello(address: SocketAddr) -> Self {
        let mut client = Self::raw(address);
        client.expect("220 ");
        assert!(client.command("EHLO client.test").starts_with("250-"));
        client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the proxy takes nothing any more");
    }

    /// Sends bytes as far as the proxy takes them.
    pub fn send_what_it_takes(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
    }

    /// One reply, its lines without CRLF and joined by LF.
    pub fn reply(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line).expect("no reply in time");
            let line = String::from_utf8_lossy(&line).into_owned();
            let text = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("not a line: {line:?} {lines:?}"));
            lines.push(text.to_owned());
            if text.as_bytes().get(3) != Some(&b'-') {
                return lines.join("\n");
            }
        }
    }

    /// One reply that starts so.
    #[track_caller]
    pub fn expect(&mut self, start: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(start), "{start:?} was due, not {reply:?}");
        reply
    }

    /// One reply for each, that starts so.
    #[track_caller]
    pub fn expect_all(&mut self, starts: &[&str]) {
        for start in starts {
            self.expect(start);
        }
    }

    /// Sends one line and reads the reply.
    pub fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// Sends the envelope and DATA; the content is due next.
    #[track_caller]
    pub fn envelope(&mut self, mail: &Mail) {
        let reply = self.command(&format!("MAIL FROM:<{}>{}", mail.from, mail.parameters));
        assert!(reply.starts_with("250 "), "{reply}");
        for recipient in &mail.to {
            let reply = self.command(&format!("RCPT TO:<{recipient}>"));
            assert!(reply.starts_with("250 "), "{reply}");
        }
        let reply = self.command("DATA");
        assert!(reply.starts_with("354 "), "{reply}");
    }

    /// Sends a message up to the end of data, and reads nothing more.
    #[track_caller]
    pub fn start(&mut self, mail: &Mail) {
        self.envelope(mail);
        self.send(mail.stuffed());
    }

    /// Sends a message and gives the reply to it.
    #[track_caller]
    pub fn deliver(&mut self, mail: &Mail) -> String {
        self.start(mail);
        self.reply()
    }

    /// Sends an octet now and then until a reply comes that starts so.
    pub fn trickle_until(&mut self, start: &str) {
        let since = std::time::Instant::now();
        self.stream.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        loop {
            assert!(since.elapsed() < DEADLINE, "no {start:?} in time");
            let _ = self.stream.get_mut().write(b"x");
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).is_ok() {
                let line = String::from_utf8_lossy(&line).into_owned();
                return assert!(line.starts_with(start), "{start:?} was due, not {line:?}");
            }
        }
    }

    /// Sends an octet now and then until the proxy closes the connection
    /// without a word.
    pub fn trickle_until_closed(&mut self) {
        let since = std::time::Instant::now();
        self.stream.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        loop {
            assert!(since.elapsed() < DEADLINE, "it stays open");
            let _ = self.stream.get_mut().write(b"x");
            match self.stream.fill_buf() {
                Ok(said) => return assert!(said.is_empty(), "{}", said.escape_ascii()),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(_) => {}
            }
        }
    }

    /// Whether the proxy closes the connection now, without another word.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Everything that still comes until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// The socket, for somebody who goes on in another language.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.stream.buffer().is_empty(), "something came unasked for");
        self.stream.into_inner()
    }

    /// Says no more, but still listens.
    pub fn finish(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }
}
