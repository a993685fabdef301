//! What must hold, computed from what the world has seen.

use std::time::Duration;

use super::history::{Answer, History, Submission, Transaction};
use super::plan::{ClientPlan, GONE, Policy};
use super::time::{Ms, Wall};

/// How long after it was heard a reply may not be on stable storage yet.
const SETTLING: Ms = 30_000;

/// How long after its end an attempt may still be called under way: a claim is
/// settled by then, or its holder waits for a bad disk.
const LANDING: Ms = 20_000;

/// The longest that an attempt takes, its deadlines one after the other.
const LONGEST: Ms = 300_000;

/// The rules by which a history is judged.
pub struct Rules<'a> {
    pub policy: &'a Policy,
    pub wall: &'a Wall,
    pub proxies: usize,
}

impl Rules<'_> {
    /// The upstream has taken a message: nobody gets one twice.
    pub fn on_acceptance(&self, history: &History, new: usize) -> Result<(), String> {
        let new = &history.transactions[new];
        let mail = history.mail(new);
        for old in history.about(mail.event()).filter(|old| !std::ptr::eq(*old, new)) {
            self.once(history, old, new)?;
        }
        Ok(())
    }

    fn once(&self, history: &History, old: &Transaction, new: &Transaction) -> Result<(), String> {
        let (mail, before) = (history.mail(new), history.mail(old));
        let is_other = mail.text != before.text;
        // The upstream may decide on the first one when the second is done.
        let first = if old.begun <= new.begun { old } else { new };
        for (to, _) in &new.recipients {
            let (Some(now), Some(then)) = (new.accepted(*to), old.accepted(*to)) else { continue };
            let last = now.max(then);
            // A doubt may be recorded, and its window begin, before the upstream decides.
            if self.may_be_forgotten(first.begun, last) || self.relays_conflicts(history, mail) {
                continue;
            }
            // Another text, too, where an attempt in between was put off.
            let resent = self.policy.in_doubt == "resend" && self.is_doubtful(history, first, *to);
            if !resent {
                return Err(format!("{} got {} twice", name(*to), mail.name()));
            }
        }
        // One claim covers all, so no other text may go to anybody.
        let taken = |of: &Transaction| of.recipients.iter().find_map(|(to, _)| of.accepted(*to));
        let doubtful = first.recipients.iter().any(|(to, _)| self.is_doubtful(history, first, *to));
        if let (Some(now), Some(then)) = (taken(new), taken(old))
            && is_other
            && !(doubtful && self.policy.in_doubt == "resend")
            && (self.policy.scope, self.policy.on_conflict) == ("message", "reject")
            && !self.may_be_forgotten(first.begun, now.max(then))
        {
            return Err(format!("another text of {} was sent", mail.name()));
        }
        Ok(())
    }

    /// Where texts take each other's place, it is sent as often as they do.
    fn relays_conflicts(&self, history: &History, mail: &ClientPlan) -> bool {
        let differs = |one: &Submission| one.mail.event() == mail.event() && one.mail.text != mail.text;
        self.policy.on_conflict == "relay" && history.submissions.iter().any(differs)
    }

    /// Whether what was settled at `from` or later may have expired by `to`.
    fn may_be_forgotten(&self, from: Ms, to: Ms) -> bool {
        self.wall.may_have_passed(self.policy.window, from, to)
    }

    /// Whether nobody can know from here what became of it: the last octets
    /// have left and no reply was heard, or the proxy died before it had
    /// written the outcome down.
    fn is_doubtful(&self, history: &History, of: &Transaction, to: usize) -> bool {
        if of.granted.is_none() || !of.takes(to) {
            return false;
        }
        let died = history.deaths.get(&of.process);
        if !of.is_heard() {
            return of.is_completed() || died.is_some();
        }
        // What a client has heard is on the disk, unless that is broken. After a
        // crash it may hear of those alone whose records came through.
        let left = of.ended.unwrap_or(of.begun) + SETTLING;
        let lost = |died: &Ms| *died <= left && of.told.is_none_or(|told| told > *died);
        history.disk_was_bad || died.is_some_and(lost)
    }

    /// A client has heard the answer to its message.
    pub fn on_answer(&self, history: &History, number: usize) -> Result<(), String> {
        let submission = &history.submissions[number];
        let Some(answer) = &submission.answer else { return Ok(()) };
        self.quotes_its_own(history, submission, answer)?;
        if answer.is_success() {
            self.is_backed(history, submission, answer)
        } else {
            self.is_in_flight(history, number, answer)
        }
    }

    /// A 2xx says that the upstream has it, or may have it.
    fn is_backed(&self, history: &History, submission: &Submission, answer: &Answer) -> Result<(), String> {
        let mail = &submission.mail;
        let has = |to: usize| {
            let same = |other: &&Transaction| {
                self.policy.on_conflict == "suppress" || history.mail(other).text == mail.text
            };
            let about: Vec<_> = history.about(mail.event()).filter(same).collect();
            let accepted = about.iter().any(|of| of.accepted(to).is_some());
            (accepted, accepted || about.iter().any(|of| self.is_doubtful(history, of, to)))
        };
        let all: Vec<_> = mail.recipients.iter().map(|to| has(*to)).collect();
        let partial = self.policy.on_partial == "accept";
        let backed = if partial { all.iter().any(|has| has.1) } else { all.iter().all(|has| has.1) };
        if !backed {
            return Err(format!("{} was accepted, and the upstream has it not for all", mail.name()));
        }
        let sure = if partial { all.iter().any(|has| has.0) } else { all.iter().all(|has| has.0) };
        if !sure && mail.recipients.len() == 1 && !answer.text.contains("[IN-DOUBT]") {
            return Err(format!("a doubt about {} passes for an acceptance", mail.name()));
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
        for transaction in quoted(&answer.text) {
            let of = history.mail(&history.transactions[transaction]);
            if of.event() != mail.event() {
                return Err(format!("{} hears the reply to {}", mail.name(), of.name()));
            }
        }
        if self.policy.scope == "message" {
            // One outcome stands for all whom a flight was about.
            return Ok(());
        }
        // `<r1@to.test>: 550 5.1.1 to=r1 …` in a report.
        for line in answer.text.split(" 4.5.0 <").flat_map(|part| part.split(" 5.5.0 <")).skip(1) {
            let Some((to, said)) = line.split_once("@to.test>: ") else { continue };
            let meant = said.split(' ').find(|word| word.starts_with("to="));
            if meant.is_some_and(|meant| meant != format!("to={to}")) {
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
        if !answer.text.contains("[IN-FLIGHT]") || self.proxies > 1 || history.disk_was_bad {
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
        let about = |text: &ClientPlan| history.about(text.event()).map(|of| (of, history.mail(of)));
        let others = |of: &Transaction, to: usize| of.takes(to) && of.granted.is_some();
        let whole = self.policy.scope == "message";
        if answer.text.contains("[CONFLICT]") {
            let conflicts = about(mail).any(|(of, other)| {
                other.text != mail.text && mail.recipients.iter().any(|to| whole || others(of, *to))
            });
            let conflicts = conflicts || Self::meets_another_text(history, submission);
            return match conflicts && self.policy.on_conflict == "reject" {
                true => Ok(()),
                false => Err(format!("{} meets a conflict with nothing", mail.name())),
            };
        }
        if answer.text.contains("[DUPLICATE]") {
            let known = about(mail).any(|(of, _)| mail.recipients.iter().any(|to| others(of, *to)));
            return match known && self.policy.on_duplicate == "reject" {
                true => Ok(()),
                false => Err(format!("{} is called a duplicate of nothing", mail.name())),
            };
        }
        match mail.recipients.contains(&GONE) && answer.text.contains(&format!("to={}", name(GONE))) {
            true => Ok(()),
            false => Err(format!("{} is refused for ever: {}", mail.name(), answer.text)),
        }
    }

    /// Whether an attempt with another text was under way, whatever became of it.
    fn meets_another_text(history: &History, submission: &Submission) -> bool {
        let mail = &submission.mail;
        let is_other = |one: &Submission| {
            one.mail.event() == mail.event() && one.mail.text != mail.text && one.complete.is_some()
        };
        // One that gave up has left its attempt to the proxy.
        let lately = |one: &Submission| {
            let end = |ended: Ms| if one.answer.is_none() { ended + LONGEST } else { ended };
            one.ended.is_none_or(|ended| submission.complete.is_some_and(|now| end(ended) >= now))
        };
        history.submissions.iter().any(|one| is_other(one) && lately(one))
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

/// The transactions whose replies a text quotes.
pub fn quoted(text: &str) -> impl Iterator<Item = usize> {
    text.split('#').skip(1).filter_map(|rest| {
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
    })
}

/// The local part of a recipient.
pub fn name(recipient: usize) -> String {
    format!("r{recipient}")
}

/// The longest that an answer may take: longer than all deadlines of an attempt
/// one after the other.
pub const PATIENCE: Duration = Duration::from_secs(900);

impl ClientPlan {
    fn name(&self) -> String {
        format!("mail k{} of t{} (text {})", self.key, self.tenant, self.text)
    }
}
