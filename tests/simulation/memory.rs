//! How long a claim is remembered: for its window, and longer where its client
//! does not know what became of the message and will come again.

use super::history::{History, Submission, Transaction};
use super::invariants::Rules;
use super::time::Ms;
use super::without;

impl Rules<'_> {
    /// Whether a window that began at `from` or later may be over by `to`.
    pub fn may_have_passed(&self, from: Ms, to: Ms) -> bool {
        self.wall.may_have_passed(self.policy().window, from, to)
    }

    /// Whether what `first` brought a recipient may be forgotten by `to`.
    pub fn may_have_forgotten(&self, history: &History, first: &Transaction, to: usize, now: Ms) -> bool {
        if !self.may_have_passed(first.begun, now) {
            return false;
        }
        let unheard = self.policy().unheard_window;
        let remembered = !without("unheard")
            && self.is_unheard(history, first, to, now)
            && !self.is_superseded(history, first, to, now)
            && !self.wall.may_have_passed(unheard, first.begun, now);
        !remembered
    }

    /// Whether a later attempt was accepted in the place of `first`, its client
    /// was told so, and its window may be over.
    fn is_superseded(&self, history: &History, first: &Transaction, to: usize, now: Ms) -> bool {
        history.about(history.mail(first).event()).any(|later| {
            later.begun > first.begun
                && later.takes(to)
                && later.decided.is_some_and(|(_, code)| code / 100 == 2)
                && !self.is_unheard(history, later, to, now)
                && self.may_have_passed(later.begun, now)
        })
    }

    /// Whether nobody was told for good what became of an attempt that the
    /// recipient may have the message from.
    fn is_unheard(&self, history: &History, of: &Transaction, to: usize, now: Ms) -> bool {
        if history.disk_was_bad || !(of.is_completed() && of.takes(to)) {
            return false;
        }
        let mail = history.mail(of);
        let own = &history.submissions[of.submission];
        let knows = |(number, one): (usize, &Submission)| {
            number != of.submission
                && one.mail.event() == mail.event()
                && (self.is_whole() || one.mail.recipients.contains(&to))
                && one.complete.is_some_and(|complete| complete < now)
                // What its proxy wrote, and it did not take, may pass for received.
                && one.answer.as_ref().map_or(one.unread, |answer| !answer.is_transient())
        };
        if history.submissions.iter().enumerate().any(knows) {
            return false;
        }
        let died = history.deaths.contains_key(&of.process);
        match &own.answer {
            Some(answer) => answer.is_transient() && !died || Self::waits_elsewhere(history, of, to),
            // The start finds a doubt that nobody was told of.
            None if died => of.is_unheard() && !of.is_poisoned(),
            None => own.left,
        }
    }

    /// Whether the client of a duplicate was told to come again while the
    /// attempt was under way.
    fn waits_elsewhere(history: &History, of: &Transaction, to: usize) -> bool {
        let Some((decided, _)) = of.decided else { return false };
        let mail = history.mail(of);
        history.submissions.iter().any(|one| {
            one.mail.event() == mail.event()
                && one.mail.text == mail.text
                && one.mail.recipients == [to]
                && one.process == of.process
                && !history.deaths.contains_key(&of.process)
                && one.ended.is_some_and(|ended| of.begun < ended && ended < decided)
                && one.answer.as_ref().is_some_and(|answer| answer.contains("[IN-FLIGHT]"))
        })
    }
}
