//! Clients: they send their mail, and again, until they hear that it is
//! accepted; some give up waiting, and some send it once more all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::content::{Names, message};
use super::history::{Answer, Submission};
use super::invariants::{PATIENCE, name};
use super::network::{ACCEPTER, End};
use super::plan::ClientPlan;
use super::random::Random;
use super::world::World;

/// How long it waits for the replies to commands.
const COURTESY: Duration = Duration::from_secs(60);

/// The longest that a client is patient between two tries, however often it
/// has tried.
const LONGEST_PAUSE: Duration = Duration::from_secs(90);

/// There is no connection any more, or it took too long.
struct Lost;

pub struct Client {
    pub world: Arc<World>,
    pub number: usize,
    pub mail: ClientPlan,
    pub random: Random,
}

impl Client {
    /// Sends until it has sent as often as it wants.
    pub async fn run(mut self) {
        sleep(self.mail.start).await;
        for _ in 0..self.mail.rounds {
            self.until_final().await;
            let most = self.random.pick(&[100, 5000, 60_000]);
            sleep(self.random.millis(0, most)).await;
        }
    }

    /// Tries until the answer is the last word: an acceptance, or a refusal for
    /// good while nothing is wrong with the world, nor was lately. Answers the last try.
    pub async fn until_final(&mut self) -> usize {
        let mut most = self.mail.backoff.min(LONGEST_PAUSE);
        loop {
            let is_well = self.world.is_well();
            let (number, answer) = self.attempt().await;
            match answer {
                Some(answer) if answer.is_success() => return number,
                Some(answer) if is_well && !answer.is_transient() => {
                    self.world.judge(|rules, history| {
                        rules.is_final(history, &history.submissions[number], &answer)
                    });
                    return number;
                }
                _ => {}
            }
            let away = if self.world.is_calm() { Duration::ZERO } else { self.mail.away };
            sleep(away + self.random.millis(500, most.as_millis() as u64)).await;
            most = (most * 2).min(LONGEST_PAUSE);
        }
    }

    /// One try, and the answer if there was one.
    async fn attempt(&mut self) -> (usize, Option<Answer>) {
        let (process, end) = self.world.reach_proxy(self.mail.listener(), &mut self.random);
        let number = self.world.submit(Submission {
            client: self.number,
            mail: self.mail.clone(),
            names: Names::default(),
            process,
            complete: None,
            ended: None,
            answer: None,
            left: false,
            unread: false,
        });
        let names = Names::of(number, self.mail.odd_names, &mut self.random);
        self.world.history(|history| history.submissions[number].names = names);
        let Some(end) = end else {
            self.world.answered(number, None);
            return (number, None);
        };
        let link = end.link().clone();
        let answer = Session { client: self, end, input: Vec::new(), number }.run().await.ok();
        let unread = link.sent_by(ACCEPTER) != link.taken_of(ACCEPTER);
        self.world.history(|history| history.submissions[number].unread = unread);
        self.world.answered(number, answer.clone());
        (number, answer)
    }
}

struct Session<'a> {
    client: &'a mut Client,
    end: End,
    input: Vec<u8>,
    number: usize,
}

impl Session<'_> {
    async fn run(mut self) -> Result<Answer, Lost> {
        self.reply(COURTESY).await?;
        self.command("EHLO client.test").await?;
        let sender = format!("MAIL FROM:<s{}@from.test>", self.number);
        let mut commands = vec![sender];
        for to in &self.client.mail.recipients {
            commands.push(format!("RCPT TO:<{}@to.test>", name(*to)));
        }
        let chunks = self.client.mail.chunks;
        if !chunks {
            commands.push("DATA".to_owned());
        }
        // We offer PIPELINING.
        let group = commands.iter().map(|command| format!("{command}\r\n")).collect::<String>();
        self.end.write_all(group.as_bytes()).await.map_err(|_| Lost)?;
        for _ in commands {
            let answer = self.reply(COURTESY).await?;
            if !answer.is_success() && answer.code != 354 {
                return Ok(answer);
            }
        }
        let message =
            self.client.world.history(|history| message(&history.submissions[self.number], self.number));
        if chunks {
            let text = format!("BDAT {} LAST\r\n{message}", message.len());
            self.end.write_all(text.as_bytes()).await.map_err(|_| Lost)?;
        } else {
            self.end.write_all(format!("{message}.\r\n").as_bytes()).await.map_err(|_| Lost)?;
        }
        self.client.world.completed(self.number);
        // Where every octet takes its time, the impatient would never hear a word.
        let patience = if self.client.world.is_calm() { PATIENCE } else { self.client.mail.patience };
        if !self.client.world.is_calm() && self.client.random.chance(self.client.mail.leaves) {
            return self.leave().await;
        }
        let answer = self.reply(patience).await;
        if answer.is_err() && patience == PATIENCE {
            self.client.world.kept_waiting(self.number, self.end.link());
        }
        let answer = answer?;
        if self.client.random.chance(300) {
            let _ = self.end.write_all(b"QUIT\r\n").await;
        }
        Ok(answer)
    }

    /// Closes the connection, both directions at once, whether or not the
    /// answer has come.
    async fn leave(mut self) -> Result<Answer, Lost> {
        let most = self.client.random.pick(&[20, 500, 8000]);
        let soon = self.client.random.millis(0, most);
        let answer = self.reply(soon).await;
        if answer.is_err() {
            let link = self.end.link();
            let unanswered = link.sent_by(ACCEPTER) == link.taken_of(ACCEPTER) && !link.is_bad();
            self.client.world.left(self.number, unanswered);
        }
        answer
    }

    async fn command(&mut self, command: &str) -> Result<Answer, Lost> {
        self.end.write_all(format!("{command}\r\n").as_bytes()).await.map_err(|_| Lost)?;
        self.reply(COURTESY).await
    }

    async fn reply(&mut self, patience: Duration) -> Result<Answer, Lost> {
        timeout(patience, self.lines()).await.map_err(|_| Lost)?
    }

    async fn lines(&mut self) -> Result<Answer, Lost> {
        let mut text: Vec<String> = Vec::new();
        loop {
            while let Some(at) = self.input.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.input[..at]).into_owned();
                self.input.drain(..at + 2);
                text.push(line.get(4..).unwrap_or_default().to_owned());
                if line.as_bytes().get(3) != Some(&b'-') {
                    let code = line.get(..3).and_then(|code| code.parse().ok()).ok_or(Lost)?;
                    return Ok(Answer { code, lines: text });
                }
            }
            match self.end.read_buf(&mut self.input).await {
                Ok(1..) => {}
                _ => return Err(Lost),
            }
        }
    }
}
