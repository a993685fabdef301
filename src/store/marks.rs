//! What is known of the single recipients of a message that one claim covers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// How many recipients the marks of one record are about.
///
/// A claim that would bring it above is not given, and the client hears so
/// ([`super::Claimed::TooMany`]). To forget a mark instead would send twice to
/// one who has it, or never to one who lacks it, and the client would not know.
pub const MAX_MARKS: usize = 500;

/// With one claim for a whole message: what became of it for each recipient
/// that an attempt was made at, by [`super::record::recipient_mark`]. Nobody
/// is in two lists. All are empty where each recipient has a claim of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Those who have it.
    pub delivered: Vec<u64>,
    /// Those who are known not to have it: refused or deferred.
    pub owed: Vec<u64>,
    /// Those of whom nobody knows.
    pub doubtful: Vec<u64>,
}

/// What an attempt brought one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It has the message, for good.
    Delivered,
    /// It certainly got nothing from this attempt.
    Owed,
    /// Nobody knows.
    Doubtful,
}

impl Marks {
    /// Notes what an attempt brought. A recipient that has the message has it,
    /// and one that may have it still may, if a later attempt brings nothing.
    pub fn note(&mut self, mark: u64, share: Share) {
        let is_doubt = self.doubtful.contains(&mark);
        if self.share(mark) == Some(share) {
            return;
        }
        if self.delivered.contains(&mark) || is_doubt && share == Share::Owed {
            return;
        }
        self.owed.retain(|other| *other != mark);
        self.doubtful.retain(|other| *other != mark);
        match share {
            Share::Delivered => self.delivered.push(mark),
            Share::Owed => self.owed.push(mark),
            Share::Doubtful => self.doubtful.push(mark),
        }
    }

    /// Notes all that others know.
    pub(super) fn unite(&mut self, others: &Marks) {
        let lists = [
            (&others.delivered, Share::Delivered),
            (&others.doubtful, Share::Doubtful),
            (&others.owed, Share::Owed),
        ];
        for (list, share) in lists {
            list.iter().for_each(|mark| self.note(*mark, share));
        }
    }

    /// Whether every recipient that has the message by `others` has it by these.
    pub(super) fn has_all_of(&self, others: &Marks) -> bool {
        others.delivered.iter().all(|mark| self.delivered.contains(mark))
    }

    /// Whether one of these recipients certainly lacks the message: no attempt
    /// that could be about it brought it, or none named it. Where the record
    /// tells no recipients apart, it is about all of them.
    pub fn is_lacked_by(&self, recipients: &[u64]) -> bool {
        !self.is_empty()
            && recipients.iter().any(|mark| matches!(self.share(*mark), None | Some(Share::Owed)))
    }

    /// What is known of a recipient; `None` of one that no attempt was made at.
    pub fn share(&self, mark: u64) -> Option<Share> {
        let lists = [
            (&self.delivered, Share::Delivered),
            (&self.owed, Share::Owed),
            (&self.doubtful, Share::Doubtful),
        ];
        lists.into_iter().find(|(list, _)| list.contains(&mark)).map(|(_, share)| share)
    }

    /// Settles all doubts the same way.
    pub(super) fn resolve(&mut self, share: Share) {
        for mark in std::mem::take(&mut self.doubtful) {
            self.note(mark, share);
        }
    }

    /// How many recipients the lists are about.
    pub fn len(&self) -> usize {
        self.delivered.len() + self.owed.len() + self.doubtful.len()
    }

    /// Whether they are about nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `more` brings new recipients, and more than there may be.
    pub(super) fn overflow(&self, more: &[u64]) -> bool {
        let known: BTreeSet<u64> =
            self.delivered.iter().chain(&self.owed).chain(&self.doubtful).copied().collect();
        let new = more.iter().filter(|mark| !known.contains(mark)).count();
        new > 0 && known.len() + new > MAX_MARKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_one_list_and_who_has_it_has_it() {
        let mut marks = Marks::default();
        for share in [Share::Owed, Share::Doubtful, Share::Owed, Share::Owed, Share::Delivered, Share::Owed] {
            marks.note(1, share);
            assert_eq!(marks.len(), 1);
        }
        assert_eq!(marks, Marks { delivered: vec![1], ..Marks::default() });
        assert_eq!((marks.share(1), marks.share(2)), (Some(Share::Delivered), None));
    }

    #[test]
    fn only_new_recipients_are_too_many() {
        let most: Vec<u64> = (0..MAX_MARKS as u64).collect();
        assert!(!Marks::default().overflow(&most));
        let full = Marks { owed: most.clone(), ..Marks::default() };
        assert!(!full.overflow(&most[..7]));
        assert!(full.overflow(&[u64::MAX]));
    }
}
