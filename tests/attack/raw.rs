//! An upstream that says octets, and keeps all that it hears.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::common::Watched;

/// What is heard on each connection, in order.
type Heard = Arc<Watched<Vec<Vec<u8>>>>;

/// The upstream. Its threads end with the test's process.
#[derive(Debug)]
pub struct Raw {
    pub address: SocketAddr,
    heard: Heard,
}

impl Raw {
    /// Plays `script` on each connection; it is told the connection's number,
    /// from 0.
    pub fn start(script: impl Fn(usize, &mut Talk) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Heard::default();
        let (script, kept) = (Arc::new(script), heard.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                kept.change(|heard| heard.push(Vec::new()));
                let (script, heard) = (script.clone(), kept.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let mut talk = Talk { stream: BufReader::new(stream), heard, number };
                    // A connection that ends early is the other side's right.
                    let _ = script(number, &mut talk);
                });
            }
        });
        Self { address, heard }
    }

    /// One that takes everything.
    pub fn willing() -> Self {
        Self::start(|_, talk| talk.serve())
    }

    /// All that was heard on a connection so far.
    pub fn heard(&self, number: usize) -> Vec<u8> {
        self.heard.lock().get(number).cloned().unwrap_or_default()
    }

    pub fn connections(&self) -> usize {
        self.heard.lock().len()
    }
}

/// One connection of it.
pub struct Talk {
    stream: BufReader<TcpStream>,
    heard: Heard,
    number: usize,
}

impl Talk {
    /// Says these octets.
    pub fn say(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(octets.as_ref())
    }

    /// Hears a line.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.heard.change(|heard| heard[self.number].extend_from_slice(&line));
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Hears so many lines.
    pub fn lines(&mut self, count: usize) -> io::Result<()> {
        (0..count).try_for_each(|_| self.line().map(|_| ()))
    }

    /// Hears message data up to the line with the dot.
    pub fn data(&mut self) -> io::Result<()> {
        while self.line()? != "." {}
        Ok(())
    }

    /// Hears whatever comes until the other side closes.
    pub fn rest(&mut self) -> io::Result<()> {
        loop {
            self.line()?;
        }
    }

    /// Greeting and EHLO, with PIPELINING and SMTPUTF8.
    pub fn greet(&mut self) -> io::Result<()> {
        self.say("220 raw.test ESMTP\r\n")?;
        self.line()?;
        self.say("250-raw.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 PIPELINING\r\n")
    }

    /// MAIL, one RCPT and DATA, granted.
    pub fn envelope(&mut self) -> io::Result<()> {
        self.lines(3)?;
        self.say("250 sender\r\n250 recipient\r\n354 go\r\n")
    }

    /// A whole session in which everything is taken.
    pub fn serve(&mut self) -> io::Result<()> {
        self.greet()?;
        loop {
            let line = self.line()?.to_ascii_uppercase();
            if line.starts_with("DATA") {
                self.say("354 go\r\n")?;
                self.data()?;
                self.say("250 2.0.0 kept\r\n")?;
            } else {
                self.say("250 2.0.0 ok\r\n")?;
            }
        }
    }
}
