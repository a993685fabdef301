//! An upstream, written apart from the program's own SMTP code: notes every
//! message that it accepts before it says so, and misbehaves as told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::within;

/// What it accepted.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) key: String,
    pub(crate) message_id: String,
    pub(crate) date: String,
    /// SHA-256 of everything behind the empty line.
    pub(crate) body: [u8; 32],
}

/// What it does at the end of a message, where it does not just accept it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Does not take it, and says so.
    Reply(&'static str),
    /// Takes it, and closes the connection without a word.
    AcceptAndDrop,
    /// Takes it, tells the owner, and answers only when told to.
    AcceptWhen(Arc<Notify>),
}

/// When the owner wants to be told.
#[derive(Debug)]
pub(crate) enum Trigger {
    /// When so many more messages were accepted. With `hold`, the last of them
    /// is never answered.
    Accepted { more: u64, hold: bool },
    /// When so many more octets came in.
    Octets { more: u64 },
}

#[derive(Default)]
struct Shared {
    mails: Mutex<Vec<Mail>>,
    accepted: watch::Sender<usize>,
    script: Mutex<VecDeque<Answer>>,
    trigger: Mutex<Option<Trigger>>,
    fired: Notify,
    /// The recipient that it defers, in upper case.
    busy: Mutex<Option<&'static str>>,
    connections: AtomicU64,
}

/// Runs until dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    /// The same on a socket that listens.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, task }
    }

    /// Answers the next messages so, one after the other.
    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.script.lock().unwrap().extend(answers);
    }

    /// Defers this recipient from now on; `None` defers nobody.
    pub(crate) fn defer(&self, recipient: Option<&'static str>) {
        *self.shared.busy.lock().unwrap() = recipient;
    }

    /// All that was accepted so far, in order.
    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.shared.mails.lock().unwrap().clone()
    }

    /// What was accepted under one key.
    pub(crate) fn mails_of(&self, key: &str) -> Vec<Mail> {
        self.mails().into_iter().filter(|mail| mail.key == key).collect()
    }

    /// How often each key was accepted.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for mail in self.shared.mails.lock().unwrap().iter() {
            *counts.entry(mail.key.clone()).or_default() += 1;
        }
        counts
    }

    /// Waits until so many were accepted in all.
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut accepted = self.shared.accepted.subscribe();
        let enough = accepted.wait_for(|now| *now >= count);
        within("the upstream accepts the message", enough).await.expect("the upstream lives");
    }

    /// Waits until `trigger` has fired.
    pub(crate) async fn until(&self, trigger: Trigger) {
        *self.shared.trigger.lock().unwrap() = Some(trigger);
        within("the upstream gets something to do", self.shared.fired.notified()).await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and all connections with it.
    let mut talks = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        // Every second one offers CHUNKING, which must not be used.
        let chunking = shared.connections.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        talks.spawn(talk(stream, shared.clone(), chunking));
        while talks.try_join_next().is_some() {}
    }
}

/// One connection. An error means that the other end is gone.
async fn talk(stream: TcpStream, shared: Arc<Shared>, chunking: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    stream.write_all(b"220 upstream.test ESMTP\r\n").await?;
    let mut message = Message::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        shared.count_octets(line.len() as u64);
        let command = String::from_utf8_lossy(&line).trim_end().to_ascii_uppercase();
        let mut words = command.split(' ');
        match words.next().unwrap_or_default() {
            "EHLO" if chunking => {
                stream.write_all(b"250-upstream.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n").await?;
            }
            "EHLO" => stream.write_all(b"250-upstream.test\r\n250 PIPELINING\r\n").await?,
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                read_lines(&mut stream, &shared, &mut message).await?;
                conclude(&mut stream, &shared, std::mem::take(&mut message)).await?;
            }
            "QUIT" => return stream.write_all(b"221 bye\r\n").await,
            "RCPT" if shared.is_busy(&command) => stream.write_all(b"450 4.2.0 busy\r\n").await?,
            "MAIL" | "RCPT" | "RSET" => stream.write_all(b"250 2.0.0 ok\r\n").await?,
            _ => panic!("unexpected command: {command}"),
        }
    }
}

async fn read_lines(
    stream: &mut BufReader<TcpStream>,
    shared: &Shared,
    message: &mut Message,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 || !line.ends_with(b"\r\n") {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        shared.count_octets(line.len() as u64);
        match line.strip_prefix(b".") {
            Some(b"\r\n") => return Ok(()),
            Some(unstuffed) => message.push(unstuffed),
            None => message.push(&line),
        }
    }
}

/// The end of a message: noted first, answered then.
async fn conclude(
    stream: &mut BufReader<TcpStream>,
    shared: &Shared,
    message: Message,
) -> std::io::Result<()> {
    let answer = shared.script.lock().unwrap().pop_front();
    if let Some(Answer::Reply(reply)) = answer {
        return stream.write_all(format!("{reply}\r\n").as_bytes()).await;
    }
    let mail = message.finish();
    let reply = format!("250 2.0.0 took {}\r\n", mail.key);
    let hold = shared.note(mail);
    if let Some(Answer::AcceptWhen(told)) = &answer {
        told.notified().await;
    } else if answer.is_some() {
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    if hold {
        // The other end is about to be killed; its end of the connection tells.
        let _ = stream.read(&mut [0]).await;
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    stream.write_all(reply.as_bytes()).await
}

impl Shared {
    /// Notes an accepted message; whether its answer is to be withheld.
    fn note(&self, mail: Mail) -> bool {
        self.mails.lock().unwrap().push(mail);
        self.accepted.send_modify(|count| *count += 1);
        let mut trigger = self.trigger.lock().unwrap();
        let Some(Trigger::Accepted { more, hold }) = &mut *trigger else { return false };
        *more = more.saturating_sub(1);
        if *more > 0 {
            return false;
        }
        let hold = *hold;
        *trigger = None;
        self.fired.notify_one();
        hold
    }

    fn is_busy(&self, command: &str) -> bool {
        let busy = *self.busy.lock().unwrap();
        busy.is_some_and(|busy| command.contains(&busy.to_ascii_uppercase()))
    }

    fn count_octets(&self, octets: u64) {
        let mut trigger = self.trigger.lock().unwrap();
        if let Some(Trigger::Octets { more }) = &mut *trigger {
            *more = more.saturating_sub(octets);
            if *more == 0 {
                *trigger = None;
                self.fired.notify_one();
            }
        }
    }
}

/// A message as it comes in; the body is hashed and let go.
#[derive(Default)]
struct Message {
    head: Vec<u8>,
    in_body: bool,
    body: Sha256,
}

impl Message {
    fn push(&mut self, bytes: &[u8]) {
        if self.in_body {
            return self.body.update(bytes);
        }
        let from = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(bytes);
        let end = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            self.in_body = true;
            let body = self.head.split_off(from + end + 4);
            self.body.update(&body);
        }
    }

    fn finish(self) -> Mail {
        let head = String::from_utf8(self.head).expect("UTF-8");
        let value = |name: &str| {
            let mut fields = head.lines().filter(|line| line.to_ascii_lowercase().starts_with(name));
            let value = fields.next().and_then(|line| line.split_once(": ")).expect("the field").1.to_owned();
            assert!(fields.next().is_none(), "{name} twice in {head}");
            value
        };
        Mail {
            key: value("x-letter"),
            message_id: value("message-id"),
            date: value("date"),
            body: self.body.finalize().into(),
        }
    }
}
