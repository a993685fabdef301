use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::super::contract::{
    accepted, at, deferred, id, in_doubt, refused, request, settlement, slot, token,
};
use super::super::memory::MapBackend;
use super::*;
use crate::config::OnConflict;
use crate::store::{Census, Change, Count, Outcome, Query, Resolution, Selection, StateName};

const EVERYTHING: IdRange = (Bound::Unbounded, Bound::Unbounded);

/// A backend that dies at a chosen write, with all before it kept.
struct Dying {
    map: MapBackend,
    left: Cell<usize>,
}

impl Dying {
    fn spend(&self) -> Result<(), StoreFault> {
        let left = self.left.get();
        if left == 0 {
            return Err(StoreFault::Failed("dead".into()));
        }
        self.left.set(left - 1);
        Ok(())
    }
}

impl Backend for Dying {
    fn get(&self, id: &ClaimId) -> Result<Option<Record>, StoreFault> {
        self.map.get(id)
    }
    fn put(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.put(record)
    }
    fn remove(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.remove(id)
    }
    fn range(&self, ids: IdRange, most: usize) -> Result<Vec<Record>, StoreFault> {
        self.map.range(ids, most)
    }
    fn add_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.add_expiry(at, id)
    }
    fn remove_expiry(&mut self, at: Timestamp, id: &ClaimId) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.remove_expiry(at, id)
    }
    fn due(&self, now: Timestamp, most: usize) -> Result<Vec<(Timestamp, ClaimId)>, StoreFault> {
        self.map.due(now, most)
    }
    fn add_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.add_key(mark, id)
    }
    fn remove_key(&mut self, mark: u64, id: &ClaimId) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.remove_key(mark, id)
    }
    fn keyed(&self, mark: u64, after: Option<&ClaimId>, most: usize) -> Result<Vec<ClaimId>, StoreFault> {
        self.map.keyed(mark, after, most)
    }
    fn is_indexed(&self) -> bool {
        self.map.is_indexed()
    }
    fn set_indexed(&mut self) -> Result<(), StoreFault> {
        self.map.set_indexed()
    }
    fn add_count(&mut self, delta: &Count) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.add_count(delta)
    }
    fn counts(&self, from: u64, after: Option<&Count>, most: usize) -> Result<Vec<Count>, StoreFault> {
        self.map.counts(from, after, most)
    }
    fn remove_counts(&mut self, before: u64, most: usize) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.remove_counts(before, most)
    }
    fn put_open(&mut self, record: &Record) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.put_open(record)
    }
    fn remove_open(&mut self, id: &ClaimId) -> Result<(), StoreFault> {
        self.spend()?;
        self.map.remove_open(id)
    }
    fn open(&self) -> Result<Vec<Record>, StoreFault> {
        self.map.open()
    }
    fn sync(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }
    fn checkpoint(&mut self) -> Result<(), StoreFault> {
        Ok(())
    }
}

/// What is known of the claim at the crash: its outcome, `None` for no record.
enum Known {
    /// A write was under way.
    Anything,
    Exactly(Option<Outcome>),
}

/// Attempts on one id until the backend dies: deferred, in doubt and resent,
/// accepted; then what operators do, and all over again.
fn live(ledger: &mut Ledger<Dying>, known: &mut Known) -> Result<(), StoreFault> {
    let mut resend = slot(1);
    resend.in_doubt = crate::config::InDoubt::Resend;
    for (attempt, outcome) in [(1, deferred()), (2, in_doubt()), (3, refused()), (4, accepted())] {
        ledger.claim(&request(attempt, at(attempt), vec![resend.clone()]))?;
        *known = Known::Anything;
        ledger.commit(token(attempt), &[id(1).into()], at(attempt))?;
        ledger.settle(token(attempt), at(attempt), &[settlement(1, outcome.clone())])?;
        *known = Known::Exactly(Some(outcome));
        ledger.count_some(10)?;
    }
    let mut exported = ledger.get(&id(1), at(4))?.into_iter().collect::<Vec<_>>();
    *known = Known::Anything;
    ledger.forget(&id(1), at(5))?;
    *known = Known::Exactly(None);
    ledger.claim(&request(5, at(5), vec![slot(1)]))?;
    *known = Known::Anything;
    ledger.settle(token(5), at(5), &[settlement(1, in_doubt())])?;
    ledger.resolve(&id(1), Resolution::NotSent, at(6))?;
    let outcome = ledger.get(&id(1), at(6))?.map(|record| record.state);
    let Some(State::Settled(outcome)) = outcome else { panic!("not resolved") };
    *known = Known::Exactly(Some(outcome));
    exported.iter_mut().for_each(|record| {
        record.last_seen = at(7);
        record.key = "another".into();
        record.expires = at(777);
    });
    *known = Known::Anything;
    ledger.import(exported, at(7))?;
    *known = Known::Exactly(Some(accepted()));
    ledger.count(&[Count::default()])
}

/// Whatever write is the last before a crash, the next start finds every
/// claim settled or in doubt, and every settled one due some day and found by
/// its key.
#[test]
fn a_crash_at_any_write_leaves_a_store_that_recovers() {
    let mut crashes = 0;
    for writes in 0.. {
        let dying = Dying { map: MapBackend::default(), left: Cell::new(writes) };
        let mut ledger = Ledger::new(dying);
        let mut known = Known::Exactly(None);
        let survived = live(&mut ledger, &mut known).is_ok();
        let mut ledger = Ledger::new(ledger.backend.map);
        let doubtful = ledger.recover(at(50)).unwrap();
        let record = ledger.get(&id(1), at(50)).unwrap();
        if let Some(record) = &record {
            assert!(matches!(record.state, State::Settled(_)), "after {writes} writes: {record:?}");
            let query = Query { of: Selection::Key(record.key.clone()), ..Query::default() };
            assert_eq!(ledger.list(&query, at(50)).unwrap().0.len(), 1, "after {writes} writes");
        }
        if let Known::Exactly(outcome) = known {
            assert_eq!(record.map(|record| record.state), outcome.map(State::Settled));
            assert!(doubtful.is_empty());
        }
        while ledger.count_some(1).unwrap() != Progress::Complete {}
        check_census(&ledger);
        assert!(ledger.backend().open().unwrap().is_empty());
        ledger.sweep(at(1_000_000), 100).unwrap();
        check_census(&ledger);
        assert!(
            ledger.backend().range(EVERYTHING, 10).unwrap().is_empty(),
            "after {writes} writes: never swept"
        );
        assert!(ledger.backend().due(at(u64::from(u32::MAX)), 10).unwrap().is_empty());
        if survived {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 30);
}

/// Against a count of every record that is there, expired or not.
fn check_census(ledger: &Ledger<MapBackend>) {
    let (mut records, _) = ledger.list(&Query::default(), Timestamp::default()).unwrap();
    // What lies beneath a claim counts as that claim.
    records.dedup_by_key(|record| record.id);
    let of = |name| records.iter().filter(|record| record.state.name() == name).count() as u64;
    let expected = Census {
        pending: of(StateName::Pending),
        committing: of(StateName::Committing),
        accepted: of(StateName::Accepted),
        deferred: of(StateName::Deferred),
        refused: of(StateName::Refused),
        in_doubt: of(StateName::InDoubt),
        complete: true,
    };
    assert_eq!(ledger.census(), expected);
    assert_eq!(ledger.figures.of_tenant("shop"), records.len() as u64);
}

/// The open record is another claim's than the expired one underneath, however
/// many attempts that one had.
#[test]
fn a_doubt_over_an_expired_record_is_found() {
    let mut ledger = Ledger::new(MapBackend::default());
    for attempt in [1, 2] {
        ledger.claim(&request(attempt, at(attempt), vec![slot(1)])).unwrap();
        ledger.settle(token(attempt), at(attempt), &[settlement(1, deferred())]).unwrap();
    }
    let late = at(10_000_000);
    ledger.claim(&request(3, late, vec![slot(1)])).unwrap();
    ledger.commit(token(3), &[id(1).into()], late).unwrap();
    let mut ledger = Ledger::new(ledger.backend);
    assert_eq!(ledger.recover(late).unwrap().len(), 1);
}

#[test]
fn a_claim_that_meets_a_fault_claims_nothing() {
    let mut ledger = Ledger::new(Dying { map: MapBackend::default(), left: Cell::new(usize::MAX) });
    ledger.claim(&request(1, at(0), vec![slot(2)])).unwrap();
    ledger.commit(token(1), &[id(2).into()], at(0)).unwrap();
    ledger.settle(token(1), at(0), &[settlement(2, accepted())]).unwrap();
    ledger.backend.left.set(0);
    // The duplicate can't be counted.
    assert!(ledger.claim(&request(2, at(0), vec![slot(1), slot(2)])).is_err());
    assert_eq!(ledger.get(&id(1), at(0)).unwrap(), None);
}

#[test]
fn an_abandoned_claim_is_forgotten_in_the_end() {
    let mut ledger = Ledger::new(MapBackend::default());
    ledger.claim(&request(1, at(0), vec![slot(1)])).unwrap();
    assert_eq!(ledger.sweep(at(120), 10).unwrap(), 0, "its holder may yet come back");
    assert_eq!(ledger.sweep(at(60 + 3600), 10).unwrap(), 1);
    assert_eq!(ledger.commit(token(1), &[id(1).into()], at(9999)), Err(StoreFault::Fenced));
}

#[test]
fn a_claim_repeated_by_its_own_token_is_granted_again() {
    let mut ledger = Ledger::new(MapBackend::default());
    for _ in 0..2 {
        let claimed = ledger.claim(&request(1, at(0), vec![slot(1)])).unwrap();
        assert!(matches!(claimed[0], Claimed::New { previous: None }));
    }
}

/// What a claim is, as simply as it can be said.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    Pending(u64, u64),
    Committing(u64),
    Accepted(u64),
    Doubt(u64),
    Retriable,
}

#[derive(Clone, Debug)]
enum Op {
    Claim,
    Commit,
    Accept,
    Defer,
    Release,
    Wait(u64),
    Restart,
    Sweep,
    Forget,
    Resolve(Resolution),
    Import,
    /// A slice of the census.
    Slice,
}

fn op() -> impl Strategy<Value = (Op, u8, u64)> {
    let kind = prop_oneof![
        4 => Just(Op::Claim),
        3 => Just(Op::Commit),
        2 => Just(Op::Accept),
        1 => Just(Op::Defer),
        1 => Just(Op::Release),
        1 => (1_u64..90).prop_map(Op::Wait),
        1 => Just(Op::Wait(1800)),
        1 => Just(Op::Restart),
        1 => Just(Op::Sweep),
        1 => Just(Op::Forget),
        1 => Just(Op::Resolve(Resolution::Sent)),
        1 => Just(Op::Resolve(Resolution::NotSent)),
        1 => Just(Op::Import),
        2 => Just(Op::Slice),
    ];
    (kind, 1_u8..4, 1_u64..5)
}

const LEASE: u64 = 60;
const WINDOW: u64 = 3600;

/// The ledger beside its model, with one clock.
struct Pair {
    ledger: Ledger<MapBackend>,
    model: HashMap<u8, Vec<Model>>,
    now: u64,
}

impl Pair {
    /// The states of an id that count now, the uppermost last: a pending claim
    /// lies over what was before.
    fn states(&mut self, number: u8) -> &mut Vec<Model> {
        let now = self.now;
        let states = self.model.entry(number).or_default();
        states.retain(
            |state| !matches!(state, Model::Accepted(expires) | Model::Doubt(expires) if *expires <= now),
        );
        states
    }

    fn holds(&mut self, number: u8, attempt: u64) -> bool {
        match self.states(number).last() {
            Some(Model::Pending(holder, _) | Model::Committing(holder)) => *holder == attempt,
            _ => false,
        }
    }

    fn claim(&mut self, number: u8, attempt: u64) {
        let now = self.now;
        let states = self.states(number);
        if matches!(states.last(), Some(Model::Pending(holder, until)) if *until <= now || *holder == attempt)
        {
            states.pop();
        }
        let expected = match states.last() {
            None | Some(Model::Retriable) => "new",
            Some(Model::Pending(..) | Model::Committing(_)) => "in flight",
            Some(Model::Accepted(_) | Model::Doubt(_)) => "settled",
        };
        if expected == "new" {
            states.push(Model::Pending(attempt, now + LEASE));
        }
        let claimed = self.ledger.claim(&request(attempt, at(now), vec![slot(number)])).unwrap();
        let found = match &claimed[0] {
            Claimed::New { .. } => "new",
            Claimed::InFlight { .. } => "in flight",
            Claimed::Settled { .. } => "settled",
            Claimed::Conflict { .. } => "conflict",
            Claimed::OverCap => "over cap",
            Claimed::TooMany => "too many",
        };
        assert_eq!(found, expected);
    }

    fn commit(&mut self, number: u8, attempt: u64) {
        let holds = self.holds(number, attempt);
        let result = self.ledger.commit(token(attempt), &[id(number).into()], at(self.now));
        assert_eq!(result.is_ok(), holds);
        if holds {
            let states = self.states(number);
            states.pop();
            states.push(Model::Committing(attempt));
        }
    }

    fn settle(&mut self, number: u8, attempt: u64, outcome: Outcome, end: Model) {
        let holds = self.holds(number, attempt);
        let result = self.ledger.settle(token(attempt), at(self.now), &[settlement(number, outcome)]);
        // One that is repeated passes, and changes nothing.
        assert!(result.is_ok() || !holds);
        if holds {
            let states = self.states(number);
            states.pop();
            match (end, states.last()) {
                // An attempt that sent nothing leaves what was known.
                (Model::Retriable, Some(Model::Accepted(_) | Model::Doubt(_))) => {}
                (end, _) => *states = vec![end],
            }
        }
    }

    fn release(&mut self, number: u8, attempt: u64) {
        self.ledger.release(token(attempt), &[id(number)]);
        let states = self.states(number);
        if matches!(states.last(), Some(Model::Pending(holder, _)) if *holder == attempt) {
            states.pop();
        }
    }

    /// In doubt suppresses just as accepted does.
    fn restart(&mut self) {
        let now = self.now;
        self.ledger = Ledger::new(self.ledger.backend.clone());
        self.ledger.recover(at(now)).unwrap();
        for states in self.model.values_mut() {
            states.retain(|state| !matches!(state, Model::Pending(..)));
            if matches!(states.last(), Some(Model::Committing(_))) {
                states.pop();
                let accepted = |state: &Model| matches!(state, Model::Accepted(expires) if *expires > now);
                if !states.last().is_some_and(accepted) {
                    *states = vec![Model::Doubt(now + WINDOW)];
                }
            }
        }
    }

    /// The states of an id without a claim whose lease has run out, and
    /// whether somebody holds it.
    fn unlapsed(&mut self, number: u8) -> (&mut Vec<Model>, bool) {
        let now = self.now;
        let states = self.states(number);
        if matches!(states.last(), Some(Model::Pending(_, until)) if *until <= now) {
            states.pop();
        }
        let held = matches!(states.last(), Some(Model::Pending(..) | Model::Committing(_)));
        (states, held)
    }

    fn forget(&mut self, number: u8) {
        let change = self.ledger.forget(&id(number), at(self.now)).unwrap();
        let (states, held) = self.unlapsed(number);
        assert_eq!(matches!(change, Change::Refused(_)), held);
        if !held {
            states.clear();
        }
    }

    fn resolve(&mut self, number: u8, as_: Resolution) {
        let change = self.ledger.resolve(&id(number), as_, at(self.now)).unwrap();
        let (states, _) = self.unlapsed(number);
        let doubt = match states.last() {
            Some(Model::Doubt(expires)) => Some(*expires),
            _ => None,
        };
        assert_eq!(matches!(change, Change::Done(_)), doubt.is_some());
        if let Some(expires) = doubt {
            let resolved = match as_ {
                Resolution::Sent => Model::Accepted(expires),
                Resolution::NotSent => Model::Retriable,
            };
            *states = vec![resolved];
        }
    }

    /// A record that was seen a moment later than anything here.
    fn import(&mut self, number: u8) {
        let now = self.now;
        let mut other = Ledger::new(MapBackend::default());
        other.claim(&request(1, at(now), vec![slot(number)])).unwrap();
        other.settle(token(1), at(now), &[settlement(number, accepted())]).unwrap();
        let mut record = other.get(&id(number), at(now)).unwrap().unwrap();
        record.last_seen = Timestamp::from_millis(at(now).as_millis() + 1);
        let imported = self.ledger.import(vec![record], at(now)).unwrap();
        assert_eq!(imported.expired, 0);
        let (states, held) = self.unlapsed(number);
        // It lies beneath an attempt that is under way.
        let top = if held { states.pop() } else { None };
        *states = vec![Model::Accepted(now + WINDOW)];
        states.extend(top);
    }
}

proptest! {
    #[test]
    fn the_ledger_does_as_a_simple_model_does(ops in prop::collection::vec(op(), 1..80)) {
        let ledger = Ledger::new(MapBackend::default());
        let mut pair = Pair { ledger, model: HashMap::new(), now: 0 };
        for (op, number, attempt) in ops {
            match op {
                Op::Claim => pair.claim(number, attempt),
                Op::Commit => pair.commit(number, attempt),
                Op::Accept => {
                    let end = Model::Accepted(pair.now + WINDOW);
                    pair.settle(number, attempt, accepted(), end);
                }
                Op::Defer => pair.settle(number, attempt, deferred(), Model::Retriable),
                Op::Release => pair.release(number, attempt),
                Op::Wait(seconds) => pair.now += seconds,
                Op::Restart => pair.restart(),
                Op::Sweep => {
                    // An abandoned claim may go; the model drops it too.
                    pair.ledger.sweep(at(pair.now), 100).unwrap();
                    let now = pair.now;
                    for states in pair.model.values_mut() {
                        states.retain(|s| !matches!(s, Model::Pending(_, until) if until + 3600 <= now));
                    }
                }
                Op::Forget => pair.forget(number),
                Op::Resolve(as_) => pair.resolve(number, as_),
                Op::Import => pair.import(number),
                Op::Slice => drop(pair.ledger.count_some(1).unwrap()),
            }
            if pair.ledger.census().complete {
                check_census(&pair.ledger);
            }
        }
        while pair.ledger.count_some(1).unwrap() != Progress::Complete {}
        check_census(&pair.ledger);
    }

    #[test]
    fn a_conflict_never_passes_for_a_duplicate(prints in prop::collection::vec(0_u8..3, 1..20)) {
        let mut ledger = Ledger::new(MapBackend::default());
        for (attempt, print) in prints.iter().enumerate() {
            let attempt = attempt as u64;
            let mut slot = slot(1);
            slot.fingerprint.0 = [*print; 32];
            slot.on_conflict = OnConflict::Reject;
            let same = *print == prints[0];
            match &ledger.claim(&request(attempt, at(attempt), vec![slot])).unwrap()[0] {
                Claimed::New { .. } => {
                    prop_assert_eq!(attempt, 0);
                    ledger.commit(token(0), &[id(1).into()], at(0)).unwrap();
                    ledger.settle(token(0), at(0), &[settlement(1, accepted())]).unwrap();
                }
                Claimed::Settled { conflict: false, .. } => prop_assert!(same),
                Claimed::Conflict { .. } => prop_assert!(!same),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

/// A record that moves from a former id is written before it is removed: a crash
/// may leave it twice, and never not at all.
#[test]
fn a_crash_while_a_record_moves_never_loses_it() {
    let today = Slot { former: vec![id(9)], ..slot(1) };
    let mut map = MapBackend::default();
    map.expect_former().unwrap();
    let mut ledger = Ledger::new(map);
    ledger.claim(&request(1, at(0), vec![Slot { id: id(9), ..slot(1) }])).unwrap();
    ledger.settle(token(1), at(0), &[settlement(9, accepted())]).unwrap();
    let before = ledger.backend;
    let mut crashes = 0;
    for writes in 0.. {
        let dying = Dying { map: before.clone(), left: Cell::new(writes) };
        let mut ledger = Ledger::new(dying);
        let survived = ledger.claim(&request(2, at(1), vec![today.clone()])).is_ok();
        let mut ledger = Ledger::new(ledger.backend.map);
        ledger.recover(at(2)).unwrap();
        while ledger.count_some(1).unwrap() != Progress::Complete {}
        check_census(&ledger);
        let again = ledger.claim(&request(3, at(2), vec![today.clone()])).unwrap();
        assert!(
            matches!(&again[0], Claimed::Settled { record, .. } if record.id == id(1)),
            "{writes}: {again:?}"
        );
        check_census(&ledger);
        ledger.sweep(at(1_000_000), 100).unwrap();
        assert!(ledger.backend().range(EVERYTHING, 10).unwrap().is_empty(), "after {writes} writes");
        assert!(ledger.backend().due(at(u64::from(u32::MAX)), 10).unwrap().is_empty());
        if survived {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 4, "{crashes}");
}
