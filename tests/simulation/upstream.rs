//! The upstream: a server that does as the plan says, and decides alone what
//! is an accepted message.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::forms::Form;
use super::history::{Said, Transaction};
use super::invariants::name;
use super::network::{ACCEPTER, End, OPENER};
use super::plan::{GONE, UpstreamPlan};
use super::random::Random;
use super::world::World;

/// Why it stops talking.
pub struct Gone;

struct Server {
    world: Arc<World>,
    end: End,
    process: usize,
    random: Random,
    input: Vec<u8>,
    /// The transaction under way.
    current: Option<usize>,
    /// How much was sent with the line that nobody had asked for.
    stray: Option<u64>,
    /// Whether that was before the transaction under way.
    was_unasked: bool,
}

/// Serves one connection of a proxy.
pub async fn serve(world: Arc<World>, end: End, process: usize, random: Random) {
    let input = Vec::new();
    let mut server =
        Server { world, end, process, random, input, current: None, stray: None, was_unasked: false };
    let _ = server.run().await;
    server.ended();
}

impl Server {
    async fn run(&mut self) -> Result<(), Gone> {
        self.hesitate().await;
        match self.unwilling() {
            Some(code) => return self.reply(code, "4.3.2 not now").await,
            None => self.reply(220, "upstream.test ready").await?,
        }
        loop {
            let line = self.command().await?;
            self.hesitate().await;
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            if !matches!(&*verb, "EHLO" | "RCPT" | "DATA") && self.strikes(10).await? {
                return Ok(());
            }
            match &*verb {
                "EHLO" | "HELO" => self.hello().await?,
                "MAIL" => self.mail(&line).await?,
                "RCPT" => self.recipient(&line).await?,
                "DATA" => self.data().await?,
                // It reads no chunk: what follows is commands.
                "BDAT" => self.say(b"503 5.5.1 no chunks now\r\n").await?,
                "RSET" => {
                    self.ended();
                    self.say(b"250 2.0.0 forgotten\r\n").await?;
                }
                "QUIT" => return self.reply(221, "2.0.0 bye").await,
                _ => self.is_no_command(&line),
            }
        }
    }

    fn is_no_command(&self, line: &str) {
        self.world.fault(format!("content is taken for the command {line:?}"));
    }

    async fn hello(&mut self) -> Result<(), Gone> {
        let plan = self.plan();
        let mut reply = "upstream.test\n8BITMIME\n".to_owned();
        if plan.pipelining {
            reply.push_str("PIPELINING\n");
        }
        if plan.chunking {
            reply.push_str("CHUNKING\n");
        }
        self.reply(250, &(reply + "ENHANCEDSTATUSCODES")).await
    }

    async fn mail(&mut self, line: &str) -> Result<(), Gone> {
        self.ended();
        let number =
            |line: &str| line.strip_prefix("MAIL FROM:<s")?.split_once("@from.test>")?.0.parse().ok();
        let Some(submission) = number(line) else {
            self.is_no_command(line);
            return Err(Gone);
        };
        let transaction = Transaction {
            submission,
            process: self.process,
            link: self.end.link().clone(),
            begun: self.world.time.now(),
            recipients: Vec::new(),
            granted: None,
            decided: None,
            carried: None,
            repeats: None,
            reply: None,
            stray: self.stray,
            ended: None,
            told: None,
        };
        self.was_unasked = self.stray.is_some();
        self.current = Some(self.world.begin(transaction));
        if let Some(code) = self.unwilling() {
            return self.refuse(code, "sender").await;
        }
        self.reply(250, "2.1.0 sender ok").await
    }

    async fn recipient(&mut self, line: &str) -> Result<(), Gone> {
        let Some(current) = self.current else { return self.say(b"503 5.5.1 MAIL first\r\n").await };
        let number = |line: &str| line.strip_prefix("RCPT TO:<r")?.split_once("@to.test>")?.0.parse().ok();
        let Some(to) = number(line) else {
            self.is_no_command(line);
            return Err(Gone);
        };
        let code = if to == GONE { Some(550) } else { self.unwilling() };
        self.world
            .history(|history| history.transactions[current].recipients.push((to, code.unwrap_or(250))));
        match code {
            Some(421) => {
                self.reply(421, "4.3.0 recipient refused").await?;
                Err(Gone)
            }
            Some(code) => {
                let text = format!("{}.1.1 to={} refused #{current}.", code / 100, name(to));
                self.decisive(current, code, &text).await
            }
            None => self.reply(250, "2.1.5 recipient ok").await,
        }
    }

    /// The transaction, where it has a recipient.
    fn with_recipients(&self) -> Option<usize> {
        let current = self.current?;
        let taken = |recipients: &[(usize, u16)]| recipients.iter().any(|(_, code)| *code == 250);
        self.world.history(|history| taken(&history.transactions[current].recipients)).then_some(current)
    }

    async fn data(&mut self) -> Result<(), Gone> {
        let Some(current) = self.with_recipients() else {
            return self.say(b"554 5.5.1 no recipients\r\n").await;
        };
        if let Some(code) = self.unwilling() {
            return self.refuse(code, "data").await;
        }
        let dots = self.end.link().dots_of(OPENER);
        self.world.history(|history| {
            let transaction = &mut history.transactions[current];
            (transaction.granted, transaction.reply) = (Some(dots), None);
        });
        self.reply(354, "go ahead").await?;
        self.interrupt(current).await?;
        self.unasked().await?;
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

    /// Refuses in the middle of the content, whatever of that comes still.
    async fn interrupt(&mut self, current: usize) -> Result<(), Gone> {
        if !self.trouble(self.plan().interrupts) {
            return Ok(());
        }
        sleep(self.random.millis(0, 300)).await;
        let code = self.random.pick(&[450, 452, 552, 554]);
        self.world.decide(current, code);
        self.decisive(current, code, &format!("{}.3.4 enough of #{current}", code / 100)).await
    }

    /// The message is complete: what is decided now counts, whoever hears of it.
    async fn complete(&mut self, current: usize, content: Vec<u8>) -> Result<(), Gone> {
        self.world.check_content(current, &content);
        if self.was_unasked {
            self.world.fault(format!("#{current} came over a connection that had spoken unasked"));
        }
        if self.world.history(|history| history.transactions[current].decided.is_some()) {
            // Refused long ago.
            self.ended();
            return Ok(());
        }
        let lost = self.trouble(self.plan().loses);
        if lost && self.random.chance(300) {
            // It goes down with the message.
            return Err(Gone);
        }
        self.hesitate().await;
        let code = self.unwilling().unwrap_or(250);
        let said = if code == 250 { self.world.take(current, &content) } else { current };
        self.world.decide(current, code);
        if lost {
            if self.random.chance(400) {
                self.fall_silent().await?;
            }
            return Err(Gone);
        }
        self.hesitate().await;
        self.decisive(current, code, &format!("{}.0.0 decided #{said}.", code / 100)).await?;
        self.ended();
        if code == 421 { Err(Gone) } else { Ok(()) }
    }

    fn ended(&mut self) {
        if let Some(current) = self.current.take() {
            self.world.end(current);
        }
    }

    async fn refuse(&mut self, code: u16, what: &str) -> Result<(), Gone> {
        let text = format!("{}.3.0 {what} refused", code / 100);
        match self.current {
            Some(current) => self.decisive(current, code, &text).await?,
            None => self.reply(code, &text).await?,
        }
        self.ended();
        if code == 421 { Err(Gone) } else { Ok(()) }
    }

    fn plan(&self) -> UpstreamPlan {
        self.world.plan.upstream
    }

    fn trouble(&mut self, in_a_thousand: u64) -> bool {
        !self.world.is_calm() && self.random.chance(in_a_thousand)
    }

    /// A code instead of a yes.
    fn unwilling(&mut self) -> Option<u16> {
        self.trouble(self.plan().unwilling).then(|| self.random.pick(&[421, 450, 451, 550, 554]))
    }

    /// Goes away, or is silent for ever, instead of an answer.
    async fn strikes(&mut self, in_a_thousand: u64) -> Result<bool, Gone> {
        if self.plan().unwilling == 0 || !self.trouble(in_a_thousand) {
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
        let slow = self.plan().slow;
        if self.trouble(slow) {
            let most = self.random.pick(&[100, 3000, 40_000]);
            sleep(self.random.millis(1, most)).await;
        }
    }

    /// A reply that speaks of the whole message, where it goes to one recipient.
    async fn decisive(&mut self, current: usize, code: u16, text: &str) -> Result<(), Gone> {
        let granted = self.world.history(|history| history.transactions[current].granted.is_some());
        if !granted {
            self.unasked().await?;
        }
        let form = self.form(code);
        let octets = form.write(code, text);
        let from = self.end.link().sent_by(ACCEPTER);
        let may_pass_for_a_fault = !granted && (form.ends() || form == Form::BareLf);
        let said = Said { from, octets: octets.clone(), may_pass_for_a_fault };
        self.world.history(|history| history.transactions[current].reply = Some(said));
        self.send(form, &octets).await
    }

    async fn reply(&mut self, code: u16, text: &str) -> Result<(), Gone> {
        self.unasked().await?;
        let form = self.form(code);
        let octets = form.write(code, text);
        self.send(form, &octets).await
    }

    fn form(&mut self, code: u16) -> Form {
        match self.random.chance(self.plan().odd) {
            true => Form::odd(code, self.world.is_calm(), &mut self.random),
            false => Form::Plain,
        }
    }

    async fn send(&mut self, form: Form, octets: &[u8]) -> Result<(), Gone> {
        self.say(octets).await?;
        if form == Form::Plain {
            return Ok(());
        }
        self.world.note(|| format!("upstream says {form:?}"));
        if form.ends() { Err(Gone) } else { Ok(()) }
    }

    /// May say a line that nobody has asked for, once.
    async fn unasked(&mut self) -> Result<(), Gone> {
        if self.stray.is_some() || !self.trouble(self.plan().strays) {
            return Ok(());
        }
        self.say_unasked().await
    }

    /// Where DATA may be next, its line does not pass for the grant of that.
    async fn say_unasked(&mut self) -> Result<(), Gone> {
        let code = self.random.pick(&[250, 250, 220, 450, 550, 421, 354]);
        let granted =
            |current: usize| self.world.history(|history| history.transactions[current].granted.is_some());
        let code = if self.current.is_none_or(granted) || code != 354 { code } else { 250 };
        self.say(format!("{code} {}.0.0 unasked\r\n", code / 100).as_bytes()).await?;
        self.world.note(|| format!("upstream says {code} unasked"));
        self.stray = Some(self.end.link().sent_by(ACCEPTER));
        self.end.link().is_odd.store(true, Ordering::SeqCst);
        if let Some(current) = self.current {
            self.world.history(|history| history.transactions[current].stray = self.stray);
        }
        if code == 421 { Err(Gone) } else { Ok(()) }
    }

    async fn say(&mut self, octets: &[u8]) -> Result<(), Gone> {
        self.end.write_all(octets).await.map_err(|_| Gone)
    }

    async fn read(&mut self) -> Result<(), Gone> {
        match self.end.read_buf(&mut self.input).await {
            Ok(1..) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// The next command; while it is waited for, a line may be said unasked.
    async fn command(&mut self) -> Result<String, Gone> {
        if self.stray.is_none() && self.trouble(self.plan().strays) {
            let pause = self.random.millis(0, 5000);
            match timeout(pause, self.line()).await {
                Ok(line) => return line,
                Err(_) => self.say_unasked().await?,
            }
        }
        self.line().await
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
