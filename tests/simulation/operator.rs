//! An operator: does something to any claim in the middle of the trouble, and
//! looks after what is in doubt when it is calm.

use std::time::Duration;

use mailonce::clock::Clock;
use mailonce::store::{Change, Query, Record, Resolution, StateName, Store};
use tokio::time::sleep;

use super::history::{History, Operated, Transaction};
use super::invariants::name;
use super::plan::Operation;
use super::world::{ARRIVED, World};

/// The submission that a record's latest attempt was of.
fn submission_of(record: &Record) -> Option<usize> {
    record.sender.strip_prefix('s')?.split('@').next()?.parse().ok()
}

fn recipient_of(record: &Record) -> Option<usize> {
    record.recipient.strip_prefix('r')?.split('@').next()?.parse().ok()
}

impl World {
    /// Releases or resolves one of the claims, whatever became of it.
    pub async fn operate(&self, what: Operation, which: u64) {
        let Some(store) = self.machine(|machine| machine.store.clone()) else { return };
        let Ok((mut records, _)) = store.list(Query::default(), self.wall.now()).await else { return };
        records.retain(|record| what == Operation::Release || record.state.name() == StateName::InDoubt);
        if records.is_empty() {
            return;
        }
        let record = &records[which as usize % records.len()];
        self.carry_out(&*store, record, what).await;
    }

    async fn carry_out(&self, store: &dyn Store, record: &Record, what: Operation) {
        let Some(submission) = submission_of(record) else { return };
        let (asked, to) = (self.time.now(), recipient_of(record));
        let number = self.history(|history| {
            history.operations.push(Operated { what, asked, done: None, undone: false, submission, to });
            history.operations.len() - 1
        });
        let now = self.wall.now();
        let change = match what {
            Operation::Release => store.forget(record.id, now).await,
            Operation::ResolveSent => store.resolve(record.id, Resolution::Sent, now).await,
            Operation::ResolveNotSent => store.resolve(record.id, Resolution::NotSent, now).await,
        };
        let done = matches!(change, Ok(Change::Done(_)));
        self.note(|| format!("operator: {what:?} s{submission} {to:?}: {done}"));
        self.history(|history| {
            let operated = &mut history.operations[number];
            operated.done = done.then(|| self.time.now());
            operated.undone = matches!(change, Ok(Change::Refused(_) | Change::Absent));
        });
    }

    /// An operator who looks at what the upstream has, when nothing can be on
    /// its way any more.
    pub async fn resolve_doubts(&self) {
        loop {
            sleep(Duration::from_millis(ARRIVED)).await;
            let Some(store) = self.machine(|machine| machine.store.clone()) else { continue };
            let Ok((records, _)) = store.list(Query::default(), self.wall.now()).await else { continue };
            for record in records.iter().filter(|record| record.state.name() == StateName::InDoubt) {
                let Some(number) = submission_of(record) else { continue };
                let found = self.history(|history| self.find_out(history, number, &record.recipient));
                let Some(resolution) = found else { continue };
                self.carry_out(&*store, record, resolution).await;
            }
        }
    }

    fn find_out(&self, history: &History, submission: usize, recipient: &str) -> Option<Operation> {
        let mail = &history.submissions[submission].mail;
        let about = || history.about(mail.event()).filter(|of| history.mail(of).text == mail.text);
        let now = self.time.now();
        let to = |to: &usize| recipient.is_empty() || recipient == format!("{}@to.test", name(*to));
        let concerns = |of: &Transaction| of.recipients.iter().any(|(r, _)| to(r) && of.takes(*r));
        if about().any(|of| of.decided.is_none() && of.begun + ARRIVED > now && concerns(of)) {
            return None;
        }
        let has = about().any(|of| of.recipients.iter().any(|(r, _)| to(r) && of.accepted(*r).is_some()));
        Some(if has { Operation::ResolveSent } else { Operation::ResolveNotSent })
    }
}
