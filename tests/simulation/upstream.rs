//! The upstream: a server that does as the plan says, and decides alone what
//! is an accepted message.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::history::{Granted, Transaction};
use super::invariants::name;
use super::network::{ACCEPTER, End, OPENER};
use super::plan::GONE;
use super::random::Random;
use super::world::World;

/// Why it stops talking.
struct Gone;

struct Server {
    world: Arc<World>,
    end: End,
    process: usize,
    random: Random,
    input: Vec<u8>,
    /// The transaction under way.
    current: Option<usize>,
    /// What came in chunks.
    content: Vec<u8>,
}

/// Serves one connection of a proxy.
pub async fn serve(world: Arc<World>, end: End, process: usize, random: Random) {
    let (input, content) = (Vec::new(), Vec::new());
    let mut server = Server { world, end, process, random, input, current: None, content };
    let _ = server.run().await;
    server.ended();
}

impl Server {
    async fn run(&mut self) -> Result<(), Gone> {
        self.hesitate().await;
        match self.unwilling() {
            Some(code) => return self.say(&format!("{code} 4.3.2 not now")).await,
            None => self.say("220 upstream.test ready").await?,
        }
        loop {
            let line = self.line().await?;
            self.hesitate().await;
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            if !matches!(&*verb, "EHLO" | "RCPT" | "BDAT" | "DATA") && self.strikes(10).await? {
                return Ok(());
            }
            match &*verb {
                "EHLO" => self.hello().await?,
                "MAIL" => self.mail(&line).await?,
                "RCPT" => self.recipient(&line).await?,
                "DATA" => self.data().await?,
                "BDAT" => self.chunk(&line).await?,
                "RSET" => {
                    self.ended();
                    self.say("250 2.0.0 forgotten").await?;
                }
                "QUIT" => return self.say("221 2.0.0 bye").await,
                _ => self.say("250 2.0.0 ok").await?,
            }
        }
    }

    async fn hello(&mut self) -> Result<(), Gone> {
        let plan = self.world.plan.upstream;
        let mut reply = "250-upstream.test\r\n250-8BITMIME\r\n".to_owned();
        if plan.pipelining {
            reply.push_str("250-PIPELINING\r\n");
        }
        if plan.chunking {
            reply.push_str("250-CHUNKING\r\n");
        }
        self.say(&(reply + "250 ENHANCEDSTATUSCODES")).await
    }

    async fn mail(&mut self, line: &str) -> Result<(), Gone> {
        self.ended();
        if let Some(code) = self.unwilling() {
            return self.refuse(code, "sender").await;
        }
        let submission = line.split(['s', '@']).find_map(|part| part.parse().ok());
        let submission = submission.unwrap_or_else(|| panic!("{line} names no submission"));
        let transaction = Transaction {
            submission,
            process: self.process,
            link: self.end.link().clone(),
            begun: self.world.time.now(),
            recipients: Vec::new(),
            granted: None,
            decided: None,
            replied: None,
            ended: None,
            told: None,
        };
        self.content.clear();
        self.current = Some(self.world.begin(transaction));
        self.say("250 2.1.0 sender ok").await
    }

    async fn recipient(&mut self, line: &str) -> Result<(), Gone> {
        let Some(current) = self.current else { return self.say("503 5.5.1 MAIL first").await };
        let to = line.split(['r', '@']).find_map(|part| part.parse().ok()).unwrap_or(GONE);
        let code = if to == GONE { Some(550) } else { self.unwilling() };
        self.world
            .history(|history| history.transactions[current].recipients.push((to, code.unwrap_or(250))));
        match code {
            Some(421) => self.refuse(421, "recipient").await,
            Some(code) => {
                self.say(&format!("{code} {}.1.1 to={} refused #{current}", code / 100, name(to))).await
            }
            None => self.say("250 2.1.5 recipient ok").await,
        }
    }

    /// The transaction, where it has a recipient.
    fn with_recipients(&self) -> Option<usize> {
        let current = self.current?;
        let taken = |recipients: &[(usize, u16)]| recipients.iter().any(|(_, code)| *code == 250);
        self.world.history(|history| taken(&history.transactions[current].recipients)).then_some(current)
    }

    async fn data(&mut self) -> Result<(), Gone> {
        let Some(current) = self.with_recipients() else { return self.say("554 5.5.1 no recipients").await };
        if let Some(code) = self.unwilling() {
            return self.refuse(code, "data").await;
        }
        let dots = self.end.link().dots_of(OPENER);
        self.granted(current, Granted::Data(dots));
        self.say("354 go ahead").await?;
        let mut content = Vec::new();
        loop {
            let line = self.raw_line().await?;
            match &*line {
                b".\r\n" => break,
                [b'.', rest @ ..] => content.extend_from_slice(rest),
                line => content.extend_from_slice(line),
            }
        }
        self.complete(current, content).await
    }

    async fn chunk(&mut self, line: &str) -> Result<(), Gone> {
        let mut words = line.split(' ').skip(1);
        let size: usize = words.next().and_then(|size| size.parse().ok()).unwrap_or_default();
        while self.input.len() < size {
            self.read().await?;
        }
        let chunk: Vec<u8> = self.input.drain(..size).collect();
        let Some(current) = self.with_recipients() else { return self.say("503 5.5.1 no recipients").await };
        self.content.extend(chunk);
        if words.next().is_some() {
            let content = std::mem::take(&mut self.content);
            return self.complete(current, content).await;
        }
        if let Some(code) = self.unwilling() {
            return self.refuse(code, "chunk").await;
        }
        // What the proxy will have sent when it has heard that and no more.
        let sent = self.end.link().taken_of(OPENER);
        self.granted(current, Granted::Chunk(sent));
        self.say("250 2.0.0 chunk ok").await
    }

    fn granted(&self, current: usize, granted: Granted) {
        self.world.history(|history| history.transactions[current].granted = Some(granted));
    }

    /// The message is complete: what is decided now counts, whoever hears of it.
    async fn complete(&mut self, current: usize, content: Vec<u8>) -> Result<(), Gone> {
        self.world.check_content(current, &content);
        let lost = self.trouble(self.world.plan.upstream.loses);
        if lost && self.random.chance(300) {
            // It goes down with the message.
            return Err(Gone);
        }
        self.hesitate().await;
        let code = self.unwilling().unwrap_or(250);
        self.world.decide(current, code);
        if lost {
            if self.random.chance(400) {
                self.fall_silent().await?;
            }
            return Err(Gone);
        }
        self.hesitate().await;
        let reply = format!("{code} {}.0.0 decided #{current}", code / 100);
        let sent = self.end.link().sent_by(ACCEPTER) + reply.len() as u64 + 2;
        self.world.history(|history| history.transactions[current].replied = Some(sent));
        self.say(&reply).await?;
        self.ended();
        if code == 421 { Err(Gone) } else { Ok(()) }
    }

    fn ended(&mut self) {
        if let Some(current) = self.current.take() {
            self.world.end(current);
        }
    }

    async fn refuse(&mut self, code: u16, what: &str) -> Result<(), Gone> {
        self.say(&format!("{code} {}.3.0 {what} refused", code / 100)).await?;
        if code == 421 { Err(Gone) } else { Ok(()) }
    }

    fn trouble(&mut self, in_a_thousand: u64) -> bool {
        !self.world.is_calm() && self.random.chance(in_a_thousand)
    }

    /// A code instead of a yes.
    fn unwilling(&mut self) -> Option<u16> {
        let unwilling = self.world.plan.upstream.unwilling;
        self.trouble(unwilling).then(|| self.random.pick(&[421, 450, 451, 550, 554]))
    }

    /// Goes away, or is silent for ever, instead of an answer.
    async fn strikes(&mut self, in_a_thousand: u64) -> Result<bool, Gone> {
        if self.world.plan.upstream.unwilling == 0 || !self.trouble(in_a_thousand) {
            return Ok(false);
        }
        if self.random.chance(500) {
            self.fall_silent().await?;
        }
        Ok(true)
    }

    /// Takes what comes, and says nothing any more.
    async fn fall_silent(&mut self) -> Result<(), Gone> {
        loop {
            self.input.clear();
            self.read().await?;
        }
    }

    async fn hesitate(&mut self) {
        let slow = self.world.plan.upstream.slow;
        if self.trouble(slow) {
            let most = self.random.pick(&[100, 3000, 40_000]);
            sleep(self.random.millis(1, most)).await;
        }
    }

    async fn say(&mut self, reply: &str) -> Result<(), Gone> {
        self.end.write_all(format!("{reply}\r\n").as_bytes()).await.map_err(|_| Gone)
    }

    async fn read(&mut self) -> Result<(), Gone> {
        match self.end.read_buf(&mut self.input).await {
            Ok(1..) => Ok(()),
            _ => Err(Gone),
        }
    }

    async fn raw_line(&mut self) -> Result<Vec<u8>, Gone> {
        loop {
            if let Some(at) = self.input.windows(2).position(|two| two == b"\r\n") {
                return Ok(self.input.drain(..at + 2).collect());
            }
            self.read().await?;
        }
    }

    async fn line(&mut self) -> Result<String, Gone> {
        let line = self.raw_line().await?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}
