//! What must hold, computed from what the world has seen. Here: nobody gets a
//! message twice, and no client hears a 2xx that is not true. Beside it:
//! `doubts.rs`, `memory.rs`, and `answers.rs`.

use std::time::Duration;

use super::history::{Event, History, Submission, Transaction};
use super::plan::{ClientPlan, Operation, Plan};
use super::policy::{Change, Policy};
use super::time::{Ms, Wall};
use super::without;

/// How long after it was heard a reply may not be on stable storage yet.
const SETTLING: Ms = 30_000;

/// The longest that a proxy waits for the rest of a reply.
const COMPLETION: Ms = 30_000;

/// The rules by which a history is judged.
pub struct Rules<'a> {
    pub plan: &'a Plan,
    pub wall: &'a Wall,
}

impl Rules<'_> {
    /// What no reload changes.
    pub fn policy(&self) -> &Policy {
        &self.plan.policy
    }

    pub fn is_whole(&self) -> bool {
        self.policy().scope == "message"
    }

    /// Whether a policy that held at some time from `from` to `to` was such.
    pub fn ever(history: &History, from: Ms, to: Ms, such: impl Fn(&Change) -> bool) -> bool {
        let policies = &history.policies;
        let until = |at: usize| policies.get(at + 1).map_or(Ms::MAX, |(since, _)| *since);
        let held = |at: usize| policies[at].0 <= to && until(at) >= from;
        (0..policies.len()).any(|at| held(at) && such(&policies[at].1.change))
    }

    /// The same of the policy by which a transaction was begun.
    pub fn decided_by(history: &History, of: &Transaction, such: impl Fn(&Change) -> bool) -> bool {
        let complete = history.submissions[of.submission].complete.unwrap_or(of.begun);
        Self::ever(history, complete.min(of.begun), of.begun, such)
    }

    /// The upstream has taken a message: nobody gets one twice.
    pub fn on_acceptance(&self, history: &History, new: usize) -> Result<(), String> {
        let new = &history.transactions[new];
        if new.repeats.is_some() {
            return Ok(());
        }
        let mail = history.mail(new);
        for old in history.about(mail.event()).filter(|old| !std::ptr::eq(*old, new)) {
            // The upstream may decide on the first one when the second is done.
            let in_order = old.begun <= new.begun;
            let (first, second) = if in_order { (old, new) } else { (new, old) };
            self.once(history, first, second)?;
        }
        self.stays_resolved(history, new)
    }

    fn once(&self, history: &History, first: &Transaction, second: &Transaction) -> Result<(), String> {
        let mail = history.mail(second);
        let is_other = mail.text != history.mail(first).text;
        for (to, _) in &second.recipients {
            let (Some(now), Some(then)) = (second.accepted(*to), first.accepted(*to)) else { continue };
            let last = now.max(then);
            // A doubt may be recorded, and its window begin, before the upstream decides.
            if self.may_have_forgotten(history, first, *to, last)
                || Self::reopened(history, mail.event(), *to, first.begun, last)
                || first.is_poisoned()
                || self.took_turns(history, first, second, *to)
            {
                continue;
            }
            // Under `suppress` both texts were one e-mail, and the claim stands for either.
            let differs = is_other
                && !without("united")
                && !Self::decided_by(history, first, |policy| policy.on_conflict == "suppress")
                && Self::decided_by(history, second, |policy| policy.on_conflict == "reject");
            let resent = Self::decided_by(history, second, |policy| policy.in_doubt == "resend")
                && self.is_doubtful(history, first, *to);
            if !resent || differs {
                return Err(format!("{} got {} twice", name(*to), mail.name()));
            }
            let is_released =
                |(to, _): &(usize, u16)| Self::reopened(history, mail.event(), *to, first.begun, last);
            let is_one = first.is_to_the_same(second) && !second.recipients.iter().any(is_released);
            if self.plan.provider.is_some() && !is_other && is_one {
                return Err(format!(
                    "{} got {} twice of a provider that honours keys",
                    name(*to),
                    mail.name()
                ));
            }
        }
        self.no_other_text(history, first, second)
    }

    /// With one claim for all, no other text goes to anybody.
    fn no_other_text(
        &self,
        history: &History,
        first: &Transaction,
        second: &Transaction,
    ) -> Result<(), String> {
        let mail = history.mail(second);
        let taken = |of: &Transaction| of.recipients.iter().find_map(|(to, _)| of.accepted(*to));
        let (Some(now), Some(then)) = (taken(second), taken(first)) else { return Ok(()) };
        let doubtful = first.recipients.iter().any(|(to, _)| self.is_doubtful(history, first, *to));
        let excused = mail.text == history.mail(first).text
            || !self.is_whole()
            || doubtful && Self::decided_by(history, second, |policy| policy.in_doubt == "resend")
            // One that took its turn may be sent to others later.
            || Self::ever(history, 0, second.begun, |policy| policy.on_conflict != "reject")
            || !history.operations.is_empty()
            || first.is_poisoned()
            || self.may_have_passed(first.begun, now.max(then));
        match excused {
            true => Ok(()),
            false => Err(format!("another text of {} was sent", mail.name())),
        }
    }

    /// Whether another text took the place of the first in between: where texts
    /// may do that, each is sent as often as it does.
    fn took_turns(&self, history: &History, first: &Transaction, second: &Transaction, to: usize) -> bool {
        let (mail, before) = (history.mail(second), history.mail(first));
        if !Self::ever(history, 0, second.begun, |policy| policy.on_conflict == "relay") {
            return false;
        }
        if mail.text != before.text {
            return true;
        }
        if without("united") {
            return true;
        }
        let is_other = |other: &ClientPlan| {
            let concerns = self.is_whole() || other.recipients.contains(&to);
            other.event() == mail.event() && other.text != mail.text && concerns
        };
        // One that was committing at a crash may have been sent, for all that is known.
        let may_have = |of: &Transaction, to: usize| of.is_completed() || self.is_doubtful(history, of, to);
        let was_sent = |of: &Transaction| {
            let mut taken = of.recipients.iter().filter(|(other, _)| of.takes(*other));
            is_other(history.mail(of))
                && of.begun <= second.begun
                && taken.any(|(other, _)| (*other == to || self.is_whole()) && may_have(of, *other))
        };
        let complete = history.submissions[second.submission].complete.unwrap_or(second.begun);
        let under_way =
            |one: &Submission| is_other(&one.mail) && one.may_be_under_way(complete, second.begun);
        history.about(mail.event()).any(was_sent) || history.submissions.iter().any(under_way)
    }

    /// Whether an operator may have made the claim of a recipient a new one.
    pub fn reopened(history: &History, event: Event, to: usize, from: Ms, until: Ms) -> bool {
        history.operated(event, to).any(|operated| {
            operated.what != Operation::ResolveSent
                && operated.asked <= until
                && operated.done.is_none_or(|done| done >= from)
        })
    }

    /// What an operator has found to be sent is not sent again.
    fn stays_resolved(&self, history: &History, new: &Transaction) -> Result<(), String> {
        let mail = history.mail(new);
        let Some(complete) = history.submissions[new.submission].complete else { return Ok(()) };
        for (to, _) in new.recipients.iter().filter(|(to, _)| new.accepted(*to).is_some()) {
            for operated in history.operated(mail.event(), *to) {
                let resolved = &history.submissions[operated.submission];
                let (Some(done), Some(since)) = (operated.done, resolved.complete) else { continue };
                let holds = operated.what == Operation::ResolveSent
                    && operated.to.is_some()
                    && done < complete
                    && resolved.mail.text == mail.text
                    && !(history.has_texts(mail)
                        && Self::ever(history, 0, new.begun, |policy| policy.on_conflict == "relay"))
                    && !Self::reopened(history, mail.event(), *to, operated.asked, new.begun)
                    && !self.may_have_passed(since, new.begun);
                if holds {
                    return Err(format!(
                        "{} of {} was resolved as sent, and sent again",
                        name(*to),
                        mail.name()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether nobody may know from here what became of it: the last octets
    /// have left and no reply was heard, or the proxy died before it had
    /// written the outcome down.
    pub fn is_doubtful(&self, history: &History, of: &Transaction, to: usize) -> bool {
        if of.granted.is_none() || !of.takes(to) {
            return false;
        }
        if of.is_poisoned() {
            return true;
        }
        let died = history.deaths.get(&of.process);
        if !of.is_heard() {
            return of.is_completed() || died.is_some();
        }
        // What a client has heard is on the disk, unless that is broken, or a doubt
        // suppressed just the same. After a crash it may hear of those alone whose
        // records came through.
        let left = of.ended.unwrap_or(of.begun) + COMPLETION + SETTLING;
        let may_lose = Self::decided_by(history, of, |policy| policy.in_doubt == "suppress");
        let lost = |died: &Ms| *died <= left && (may_lose || of.told.is_none_or(|told| told > *died));
        history.disk_was_bad || died.is_some_and(lost)
    }

    /// A 2xx says that the upstream has it, or may have it.
    pub fn is_backed(&self, history: &History, submission: &Submission) -> Result<(), String> {
        let mail = &submission.mail;
        let Some(answer) = &submission.answer else { return Ok(()) };
        let (from, now) = (submission.complete.unwrap_or(0), submission.ended.unwrap_or(Ms::MAX));
        let policy = |such: fn(&Change) -> bool| Self::ever(history, from, now, such);
        let any_text = Self::ever(history, 0, now, |policy| policy.on_conflict == "suppress");
        let has = |to: usize| {
            let since = Self::released_before(history, mail.event(), to, from);
            let counts = |of: &&Transaction| {
                (any_text || history.mail(of).text == mail.text)
                    && of.ended.is_none_or(|ended| since.is_none_or(|since| ended >= since))
            };
            let about: Vec<_> = history.about(mail.event()).filter(counts).collect();
            let resolved = history.operated(mail.event(), to).any(|operated| {
                operated.what == Operation::ResolveSent && since.is_none_or(|since| operated.asked >= since)
            });
            let accepted = resolved || about.iter().any(|of| of.accepted(to).is_some() || of.is_poisoned());
            (accepted, accepted || about.iter().any(|of| self.is_doubtful(history, of, to)))
        };
        let all: Vec<_> = mail.recipients.iter().map(|to| has(*to)).collect();
        let partial = policy(|policy| policy.on_partial == "accept");
        let backed = if partial { all.iter().any(|has| has.1) } else { all.iter().all(|has| has.1) };
        if !backed {
            return Err(format!("{} was accepted, and the upstream has it not for all", mail.name()));
        }
        let sure = if partial { all.iter().any(|has| has.0) } else { all.iter().all(|has| has.0) };
        if !sure && mail.recipients.len() == 1 && !answer.contains("[IN-DOUBT]") {
            return Err(format!("a doubt about {} passes for an acceptance", mail.name()));
        }
        Ok(())
    }

    /// Since when a recipient's claim is certainly a new one for whoever comes
    /// at `at`.
    fn released_before(history: &History, event: Event, to: usize, at: Ms) -> Option<Ms> {
        let released = history.operated(event, to).filter(|operated| {
            operated.what != Operation::ResolveSent
                && operated.to.is_some()
                && operated.done.is_some_and(|done| done < at)
        });
        released.map(|operated| operated.asked).max()
    }
}

/// The local part of a recipient.
pub fn name(recipient: usize) -> String {
    format!("r{recipient}")
}

/// The longest that an answer may take: longer than all deadlines of an attempt
/// one after the other.
pub const PATIENCE: Duration = Duration::from_secs(900);

impl ClientPlan {
    pub fn name(&self) -> String {
        format!("mail k{} of t{} (text {})", self.key, self.tenant, self.text)
    }
}
