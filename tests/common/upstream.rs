//! An upstream that does what a test tells it, step by step.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType};

use super::Watched;
pub use super::gate::Gate;
use super::gate::pass;
use super::got::{Got, path_of};
use super::login;
use super::wire::{read_dots, say};

/// A step of a session at which something can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Before the greeting.
    Connect,
    Ehlo,
    /// Everything of AUTH is there.
    Auth,
    Mail,
    /// RCPT of this address.
    Rcpt(String),
    Data,
    /// The message is there; it is kept only if it is accepted.
    Dot,
}

/// What to do at a step.
#[derive(Clone, Debug)]
pub enum Do {
    /// Say this instead; lines are separated by LF. 421 closes, too.
    Say(String),
    /// Close without a word.
    Drop,
    /// Keep the message, then close without a word.
    AcceptDrop,
    /// Wait for the gate, then do as it says.
    Wait(Gate),
}

#[derive(Debug, Default)]
struct State {
    /// Steps that are asked for once, in order.
    once: VecDeque<(At, Do)>,
    /// Steps that are asked for each time.
    always: Vec<(At, Do)>,
    /// The secret of each user.
    accounts: HashMap<String, String>,
    down: bool,
    connections: usize,
    messages: Vec<Got>,
    commands: Vec<String>,
    open: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    offers: Vec<String>,
    state: Watched<State>,
}

/// The upstream.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// Bound but not listening yet: connections are refused.
    reserved: Option<OwnedFd>,
}

impl Upstream {
    /// One that offers the usual extensions, and accepts everything.
    pub fn start() -> Self {
        Self::offering(&["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "SIZE"])
    }

    /// One that offers these extensions.
    pub fn offering(offers: &[&str]) -> Self {
        let mut upstream = Self::refusing(offers);
        upstream.listen();
        upstream
    }

    /// One that owns its port but refuses connections until [`Self::listen`].
    pub fn asleep() -> Self {
        Self::refusing(&["PIPELINING", "8BITMIME"])
    }

    fn refusing(offers: &[&str]) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        let offers = offers.iter().map(|&offer| offer.to_owned()).collect();
        let shared = Arc::new(Shared { offers, state: Watched::default() });
        Self { address, shared, reserved: Some(socket) }
    }

    pub fn listen(&mut self) {
        let socket = self.reserved.take().expect("it listens already");
        rustix::net::listen(&socket, 128).unwrap();
        let listener = TcpListener::from(socket);
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.admit(stream));
            }
        });
    }

    /// From now on connections end before the greeting; those that are open
    /// end at once.
    pub fn down(&self) {
        self.shared.state.change(|state| {
            state.down = true;
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    pub fn up(&self) {
        self.shared.state.change(|state| state.down = false);
    }

    /// AUTH takes this user with this password or token from now on.
    pub fn account(&self, user: &str, secret: &str) {
        self.shared.state.change(|state| state.accounts.insert(user.to_owned(), secret.to_owned()));
    }

    /// Does this once at that step; what is asked for first is done first.
    pub fn once(&self, at: At, what: Do) {
        self.shared.state.change(|state| state.once.push_back((at, what)));
    }

    /// Says this once at that step.
    pub fn say(&self, at: At, reply: &str) {
        self.once(at, Do::Say(reply.to_owned()));
    }

    /// Does this every time at that step.
    pub fn always(&self, at: At, what: Do) {
        self.shared.state.change(|state| state.always.push((at, what)));
    }

    /// Stops the next session at that step.
    pub fn gate(&self, at: At) -> Gate {
        let gate = Gate::default();
        self.once(at, Do::Wait(gate.clone()));
        gate
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.state.lock().connections
    }

    /// Messages so far.
    pub fn messages(&self) -> Vec<Got> {
        self.shared.state.lock().messages.clone()
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.shared.state.lock().messages.len()
    }

    /// The newest message.
    #[track_caller]
    pub fn last(&self) -> Got {
        self.shared.state.lock().messages.last().cloned().expect("no message has come")
    }

    /// Every command line so far.
    pub fn commands(&self) -> Vec<String> {
        self.shared.state.lock().commands.clone()
    }

    /// The only message there is.
    #[track_caller]
    pub fn only(&self) -> Got {
        let mut messages = self.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    /// Waits until so many messages are there.
    #[track_caller]
    pub fn wait(&self, count: usize) -> Vec<Got> {
        let all = |state: &mut State| (state.messages.len() >= count).then(|| state.messages.clone());
        self.shared
            .state
            .wait(all)
            .unwrap_or_else(|| panic!("{count} messages were due, not {:?}", self.messages()))
    }
}

impl Shared {
    fn admit(&self, stream: TcpStream) {
        let down = self.state.change(|state| {
            state.connections += 1;
            state.open.push(stream.try_clone().unwrap());
            state.down
        });
        if !down {
            // A connection that ends early is the other side's right.
            let _ = self.talk(&stream);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn talk(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        self.answer(stream, At::Connect, "220 upstream.test ESMTP")?;
        let (mut mail, mut rcpt, mut user) = (String::new(), Vec::new(), None);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            self.state.change(|state| state.commands.push(line.clone()));
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let reply = match verb.as_str() {
                "EHLO" => {
                    let lines: Vec<_> = std::iter::once("250 upstream.test")
                        .map(str::to_owned)
                        .chain(self.offers.clone())
                        .collect();
                    self.answer(stream, At::Ehlo, &lines.join("\n"))?
                }
                "AUTH" => self.auth(stream, &mut reader, &line, &mut user)?,
                "MAIL" => {
                    mail = line;
                    rcpt.clear();
                    self.answer(stream, At::Mail, "250 2.1.0 sender fine")?
                }
                "RCPT" => {
                    let reply = self.answer(stream, At::Rcpt(path_of(&line)), "250 2.1.5 recipient fine")?;
                    if reply.starts_with('2') {
                        rcpt.push(line);
                    }
                    reply
                }
                "DATA" if rcpt.is_empty() => say(stream, "554 5.5.1 no valid recipients")?,
                "DATA" => {
                    let reply = self.answer(stream, At::Data, "354 go ahead")?;
                    if reply.starts_with('3') {
                        let content = read_dots(&mut reader)?;
                        self.end_of_data(
                            stream,
                            Got {
                                mail: mail.clone(),
                                rcpt: std::mem::take(&mut rcpt),
                                content,
                                user: user.clone(),
                            },
                        )?;
                    }
                    reply
                }
                "QUIT" => {
                    say(stream, "221 2.0.0 bye")?;
                    return Ok(());
                }
                _ => say(stream, "250 2.0.0 ok")?,
            };
            if reply.starts_with("421") {
                return Ok(());
            }
        }
    }

    /// PLAIN, LOGIN and XOAUTH2.
    fn auth(
        &self,
        stream: &TcpStream,
        reader: &mut impl BufRead,
        line: &str,
        user: &mut Option<String>,
    ) -> io::Result<String> {
        let mut ask = |challenge: &str| -> io::Result<String> {
            say(stream, &format!("334 {challenge}"))?;
            let mut line = String::new();
            reader.read_line(&mut line)?;
            Ok(line.trim_end().to_owned())
        };
        let (mechanism, name, secret) = login::of(line, &mut ask)?;
        let is_good = self.state.lock().accounts.get(&name) == Some(&secret);
        if !is_good && mechanism.starts_with('X') {
            assert_eq!(ask("eyJzdGF0dXMiOiI0MDEifQ==")?, "");
        }
        let usual = if is_good { "235 2.7.0 welcome upstream" } else { "535 5.7.8 not you, says upstream" };
        let reply = self.answer(stream, At::Auth, usual)?;
        *user = reply.starts_with("235").then_some(name);
        Ok(reply)
    }

    fn end_of_data(&self, stream: &TcpStream, got: Got) -> io::Result<String> {
        let keep = || {
            self.state.change(|state| {
                state.messages.push(got);
                state.messages.len()
            })
        };
        let what = match self.what(&At::Dot) {
            Some(Do::Wait(gate)) => pass(&gate),
            what => what,
        };
        match what {
            Some(Do::Say(reply)) => {
                if reply.starts_with('2') {
                    keep();
                }
                say(stream, &reply)
            }
            Some(Do::AcceptDrop) => {
                keep();
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Some(Do::Drop) => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => say(stream, &format!("250 2.0.0 queued as {}", keep())),
        }
    }

    fn what(&self, at: &At) -> Option<Do> {
        self.state.change(|state| {
            if let Some(index) = state.once.iter().position(|(when, _)| when == at) {
                return state.once.remove(index).map(|(_, what)| what);
            }
            state.always.iter().find(|(when, _)| when == at).map(|(_, what)| what.clone())
        })
    }

    /// Does what is asked for at this step, else says `usual`.
    fn answer(&self, stream: &TcpStream, at: At, usual: &str) -> io::Result<String> {
        let what = match self.what(&at) {
            Some(Do::Wait(gate)) => pass(&gate),
            what => what,
        };
        match what {
            Some(Do::Say(reply)) => say(stream, &reply),
            Some(_) => Err(io::ErrorKind::ConnectionAborted.into()),
            None => say(stream, usual),
        }
    }
}
