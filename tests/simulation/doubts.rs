//! A doubt never hides: whom nobody can answer for is named to the client. And
//! a resend carries the names of the attempt that may have arrived.

use super::answers::LONGEST;
use super::content::Names;
use super::history::{Answer, History, Submission, Transaction};
use super::invariants::{Rules, name};
use super::plan::GONE;
use super::time::Ms;
use super::without;

impl Rules<'_> {
    /// Of every recipient in doubt the client is told.
    pub fn tells_the_doubts(&self, history: &History, number: usize, answer: &Answer) -> Result<(), String> {
        let submission = &history.submissions[number];
        let mail = &submission.mail;
        let is_about_content = submission.complete.is_some() && answer.code != 421;
        let is_other = ["[STORE]", "internal error"].iter().any(|word| answer.contains(word));
        if !is_about_content || is_other || self.may_leave_out(history, submission, answer) || without("told")
        {
            return Ok(());
        }
        let may_be = |to: usize| history.about(mail.event()).any(|of| self.is_doubtful(history, of, to));
        // Duplicates of accepted mail weigh nothing beside who was newly sent to.
        let newly_sent = history.transactions.iter().any(|of| of.submission == number);
        let from = submission.complete.unwrap_or(0);
        let weightless =
            newly_sent && Self::ever(history, from, Ms::MAX, |policy| policy.on_duplicate == "reject");
        let has = |to: usize| history.about(mail.event()).any(|of| of.accepted(to).is_some());
        let no_matter = |to: &usize| may_be(*to) || weightless && has(*to);
        let needs_no_list = self.is_whole() || mail.recipients.iter().all(no_matter);
        // It may be sent again meanwhile, for another or by the policy of before.
        let now = submission.ended.unwrap_or(Ms::MAX);
        let may_be_in_flight = self.plan.proxies > 1
            || self.is_whole()
            || Self::ever(history, 0, now, |policy| policy.in_doubt == "resend");
        for to in mail.recipients.iter().filter(|to| self.must_be_told(history, number, **to)) {
            let mailbox = format!("<{}@to.test>", name(*to));
            let says = |line: &String| line.contains("[IN-DOUBT]") || line.contains("outcome unconfirmed");
            let named = |line: &String| says(line) && line.contains(&mailbox);
            let told = may_be_in_flight && answer.contains("[IN-FLIGHT]")
                || match needs_no_list {
                    true => answer.lines.iter().any(says),
                    false => answer.lines.iter().any(named),
                };
            if !told {
                return Err(format!(
                    "{} of {} is in doubt, and the client is not told",
                    name(*to),
                    mail.name()
                ));
            }
        }
        Ok(())
    }

    /// With `on_partial = "accept"` the reply for those who have it stands for
    /// all, if somebody was refused.
    fn may_leave_out(&self, history: &History, submission: &Submission, answer: &Answer) -> bool {
        let from = submission.complete.unwrap_or(0);
        let accepts = Self::ever(history, from, Ms::MAX, |policy| policy.on_partial == "accept");
        accepts && answer.is_success() && submission.mail.recipients.len() > 1
    }

    /// Whether a recipient of a submission is certainly in doubt, and was when
    /// it was decided on.
    fn must_be_told(&self, history: &History, number: usize, to: usize) -> bool {
        let submission = &history.submissions[number];
        let mail = &submission.mail;
        let (Some(complete), Some(now)) = (submission.complete, submission.ended) else { return false };
        let is_own = |of: &Transaction| of.submission == number;
        if let Some(last) = history.about(mail.event()).filter(|of| is_own(of)).last()
            && last.takes(to)
        {
            return self.is_in_doubt(history, last, to, now);
        }
        // It takes the result of the attempt that it waits for, by that one's policy.
        let waits_for =
            |one: &&Submission| one.mail.event() == mail.event() && one.may_be_under_way(complete, now);
        let begun = history.submissions.iter().filter(waits_for).filter_map(|one| one.complete);
        let from = begun.min().unwrap_or(complete).min(complete);
        if Self::ever(history, from, now, |policy| policy.in_doubt == "resend") {
            return false;
        }
        let about = || history.about(mail.event()).filter(|of| of.takes(to) && of.granted.is_some());
        let earlier = |of: &Transaction| {
            history.mail(of).text == mail.text
                && self.is_in_doubt(history, of, to, complete)
                && !self.may_have_passed(of.begun, now)
                && !history
                    .operated(mail.event(), to)
                    .any(|operated| operated.done.is_none_or(|at| at >= of.begun))
        };
        let is_whole_truth = |of: &Transaction| {
            let doubt = self.is_in_doubt(history, of, to, complete);
            doubt || !self.is_doubtful(history, of, to) && of.decided.is_none_or(|(_, code)| code / 100 != 2)
        };
        !self.may_be_relayed(history, submission) && about().all(is_whole_truth) && about().any(earlier)
    }

    fn may_be_relayed(&self, history: &History, submission: &Submission) -> bool {
        history.has_texts(&submission.mail)
            && Self::ever(history, 0, Ms::MAX, |policy| policy.on_conflict == "relay")
    }

    /// Whether an attempt certainly left a doubt, recorded at `before` or earlier.
    fn is_in_doubt(&self, history: &History, of: &Transaction, to: usize, before: Ms) -> bool {
        if history.disk_was_bad || !of.takes(to) || !of.is_completed() || of.is_poisoned() || !of.is_unheard()
        {
            return false;
        }
        let own = &history.submissions[of.submission];
        match history.deaths.get(&of.process) {
            Some(died) if own.ended.is_none_or(|ended| ended >= *died) || own.answer.is_none() => {
                history.starts.iter().any(|start| start > died && *start <= before)
            }
            _ if own.answer.is_some() => own.ended.is_some_and(|ended| ended <= before),
            _ => of.begun + LONGEST <= before,
        }
    }

    /// A message arrives with the names of the first attempt in doubt, where
    /// that is resent; else with its own.
    pub fn has_its_names(&self, history: &History, number: usize, seen: &Names) -> Result<(), String> {
        let new = &history.transactions[number];
        let submission = &history.submissions[new.submission];
        if without("first-names") {
            return Ok(());
        }
        for (to, _) in new.recipients.iter().filter(|(to, _)| new.takes(*to) && *to != GONE) {
            let Some(expected) = self.names_for(history, new, *to) else { continue };
            let is_resent = expected.message_id.is_some();
            let differs = is_resent && seen.message_id != expected.message_id
                || is_resent && expected.date.is_some() && seen.date != expected.date;
            if differs {
                let mail = submission.mail.name();
                return Err(format!("{mail} to {} has {seen:?}, not {expected:?}", name(*to)));
            }
        }
        Ok(())
    }

    /// The names that a recipient's message is to have; `None` where the world
    /// can't tell.
    fn names_for<'h>(&self, history: &'h History, new: &Transaction, to: usize) -> Option<&'h Names> {
        let submission = &history.submissions[new.submission];
        let (mail, complete) = (&submission.mail, submission.complete?);
        let other = |of: &&Transaction| !std::ptr::eq(*of, new) && of.takes(to) && of.granted.is_some();
        let earlier = history.about(mail.event()).filter(other);
        let first = earlier.into_iter().find(|of| self.is_doubtful(history, of, to) || of.is_completed());
        let Some(first) = first else {
            // One whom an attempt in doubt has named, and could not be for, may
            // have its names; so may all whom one claim covers.
            let named = |of: &Transaction| !std::ptr::eq(of, new) && of.names(to);
            let may_share = self.is_whole() || history.about(mail.event()).any(named);
            return (!may_share).then_some(&submission.names);
        };
        let all = |such: fn(&super::policy::Change) -> bool| !Self::ever(history, 0, new.begun, |p| !such(p));
        let is_certain = self.is_in_doubt(history, first, to, complete)
            && first.begun < new.begun
            && history.mail(first).text == mail.text
            && all(|policy| policy.in_doubt == "resend")
            && !self.may_be_relayed(history, submission)
            && !self.may_have_passed(first.begun, new.begun)
            && history.operated(mail.event(), to).next().is_none();
        first.carried.as_ref().filter(|_| is_certain)
    }
}
