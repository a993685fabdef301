//! What a client may hear: what the upstream said, of its own message, and
//! refusals for a reason.

use std::sync::atomic::Ordering;

use super::history::{Answer, History, Reading, Submission, Transaction};
use super::invariants::{Rules, name};
use super::plan::{ClientPlan, GONE};
use super::policy::Change;
use super::time::Ms;
use super::without;

/// How long after its end an attempt may still be called under way: a claim is
/// settled by then, or its holder waits for a bad disk.
const LANDING: Ms = 20_000;

/// The longest that an attempt takes, its deadlines one after the other.
pub const LONGEST: Ms = 300_000;

impl Submission {
    /// Whether an attempt of it may be under way at some time from `from` to `to`.
    pub fn may_be_under_way(&self, from: Ms, to: Ms) -> bool {
        // One that gave up has left its attempt to the proxy.
        let end = |ended: Ms| if self.answer.is_none() { ended + LONGEST } else { ended };
        let begun = self.complete.is_some_and(|complete| complete <= to);
        begun && self.ended.is_none_or(|ended| end(ended) >= from)
    }
}

impl Rules<'_> {
    /// A client has heard the answer to its message.
    pub fn on_answer(&self, history: &History, number: usize) -> Result<(), String> {
        let submission = &history.submissions[number];
        let Some(answer) = &submission.answer else { return Ok(()) };
        self.quotes_its_own(history, submission, answer)?;
        self.tells_the_code(history, number, answer)?;
        self.tells_the_doubts(history, number, answer)?;
        match answer.is_success() && submission.complete.is_some() {
            true => self.is_backed(history, submission),
            false => self.is_in_flight(history, number, answer),
        }
    }

    /// One to whom a message was newly sent hears what the upstream said, in
    /// whatever form.
    fn tells_the_code(&self, history: &History, number: usize, answer: &Answer) -> Result<(), String> {
        let submission = &history.submissions[number];
        let mail = &submission.mail;
        let own = |of: &&Transaction| of.submission == number;
        let Some(last) = history.about(mail.event()).filter(own).last() else { return Ok(()) };
        let [_] = mail.recipients[..] else { return Ok(()) };
        let (Some(said), Reading::Code(code)) = (&last.reply, last.reading()) else { return Ok(()) };
        let is_certain = !last.link.is_cut()
            && !last.link.is_odd.load(Ordering::SeqCst)
            && !said.may_pass_for_a_fault
            && code != 421;
        // A refused RCPT, and then no word of DATA, may pass for a fault, too.
        let gave_up = last.granted.is_none() && answer.contains("timed out");
        if is_certain && !gave_up && answer.code != code && !without("code") {
            return Err(format!("{} hears {}, and the upstream has said {code}", mail.name(), answer.code));
        }
        Ok(())
    }

    /// What is quoted of the upstream was said of this e-mail, and to whom it
    /// is said to be.
    fn quotes_its_own(
        &self,
        history: &History,
        submission: &Submission,
        answer: &Answer,
    ) -> Result<(), String> {
        let mail = &submission.mail;
        let of_stray = |line: &str| quoted(line).any(|number| history.transactions[number].stray.is_some());
        for line in &answer.lines {
            for number in quoted(line) {
                let of = history.mail(&history.transactions[number]);
                if of.event() != mail.event() {
                    return Err(format!("{} hears the reply to {}", mail.name(), of.name()));
                }
            }
            // `<r1@to.test>: 550 5.1.1 to=r1 …` in a report. With one claim for
            // a message, one outcome stands for all whom a flight was about; and
            // replies that a stray line has shifted can't be told apart.
            if self.is_whole() || of_stray(line) {
                continue;
            }
            let Some((head, said)) = line.split_once("@to.test>: ") else { continue };
            let to = head.rsplit('<').next().unwrap_or_default();
            let meant = said.split(' ').find(|word| word.starts_with("to="));
            // A connection that ends in the line cuts it off.
            if meant.is_some_and(|meant| !format!("to={to}").starts_with(meant)) {
                return Err(format!("{to} of {} gets the reply of another: {said}", mail.name()));
            }
        }
        Ok(())
    }

    /// `[IN-FLIGHT]` says that another attempt is, or was a moment ago, under
    /// way.
    fn is_in_flight(&self, history: &History, number: usize, answer: &Answer) -> Result<(), String> {
        let submission = &history.submissions[number];
        let Some(now) = submission.ended else { return Ok(()) };
        if !answer.contains("[IN-FLIGHT]") || self.plan.proxies > 1 || history.disk_was_bad {
            return Ok(());
        }
        let event = submission.mail.event();
        let lately = |ended: Option<Ms>| ended.is_none_or(|ended| ended + LANDING >= now);
        let under_way = |of: &Transaction| lately(of.ended) && of.begun + LONGEST >= now;
        let other = |(index, one): (usize, &Submission)| {
            index != number
                && one.mail.event() == event
                && one.complete.is_some()
                // One that gave up has left its attempt to the proxy.
                && (lately(one.ended) || one.answer.is_none())
        };
        let busy = history.submissions.iter().enumerate().any(other);
        if busy || history.about(event).any(under_way) {
            return Ok(());
        }
        Err(format!("{} is told of an attempt under way, and there is none", submission.mail.name()))
    }

    /// Whether a refusal is the last word though the world is calm.
    pub fn is_final(
        &self,
        history: &History,
        submission: &Submission,
        answer: &Answer,
    ) -> Result<(), String> {
        let mail = &submission.mail;
        let from = submission.complete.unwrap_or(0);
        let policy = |such: fn(&Change) -> bool| Self::ever(history, from, Ms::MAX, such);
        let about = |text: &ClientPlan| history.about(text.event()).map(|of| (of, history.mail(of)));
        let others = |of: &Transaction, to: usize| of.takes(to) && of.granted.is_some();
        if answer.contains("[CONFLICT]") {
            let conflicts = about(mail).any(|(of, other)| {
                other.text != mail.text && mail.recipients.iter().any(|to| self.is_whole() || others(of, *to))
            });
            let conflicts = conflicts || Self::meets_another_text(history, submission);
            return match conflicts && policy(|policy| policy.on_conflict == "reject") {
                true => Ok(()),
                false => Err(format!("{} meets a conflict with nothing", mail.name())),
            };
        }
        if answer.contains("[DUPLICATE]") {
            let known = about(mail).any(|(of, _)| mail.recipients.iter().any(|to| others(of, *to)));
            return match known && policy(|policy| policy.on_duplicate == "reject") {
                true => Ok(()),
                false => Err(format!("{} is called a duplicate of nothing", mail.name())),
            };
        }
        let gone = || {
            let whole = format!("5.1.1 to={}", name(GONE));
            // A connection that ends in the line cuts it off.
            let is_cut = |line: &String| answer.code == 550 && whole.starts_with(line);
            let quotes = answer.contains(&whole) || answer.lines.iter().any(is_cut);
            // The text of an odd reply may be missing.
            quotes || self.plan.upstream.odd > 0 && answer.code / 100 == 5
        };
        match mail.recipients.contains(&GONE) && gone() {
            true => Ok(()),
            false => Err(format!("{} is refused for ever: {}", mail.name(), answer.lines.join(" | "))),
        }
    }

    /// Whether an attempt with another text was under way, whatever became of it.
    fn meets_another_text(history: &History, submission: &Submission) -> bool {
        let mail = &submission.mail;
        let now = submission.complete.unwrap_or(Ms::MAX);
        history.submissions.iter().any(|one| {
            let is_other = one.mail.event() == mail.event() && one.mail.text != mail.text;
            is_other && one.may_be_under_way(now, Ms::MAX)
        })
    }

    /// From `since` on, long after every window, all of it is new.
    pub fn is_sent_anew(&self, history: &History, number: usize, since: Ms) -> Result<(), String> {
        let mail = &history.submissions[number].mail;
        for to in mail.recipients.iter().filter(|to| **to != GONE) {
            let sent = |of: &Transaction| of.begun >= since && of.accepted(*to).is_some();
            if !history.about(mail.event()).any(sent) {
                return Err(format!("{} has expired and is still not sent to {}", mail.name(), name(*to)));
            }
        }
        Ok(())
    }
}

/// The transactions whose replies a text quotes: `#13.`, where the dot shows that
/// the number is not cut.
pub fn quoted(text: &str) -> impl Iterator<Item = usize> {
    text.split('#')
        .skip(1)
        .filter_map(|rest| rest.split_once('.').and_then(|(digits, _)| digits.parse().ok()))
}
