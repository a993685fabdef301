//! What may be found of each id after a crash, as the journal tells it.

use std::collections::{BTreeMap, HashMap};

use mailonce::store::ClaimId;

/// Of an id that nothing is known of.
const ABSENT: &str = "absent";

/// The states of one id, in the order in which they came about.
#[derive(Clone, Debug)]
struct Fate {
    states: Vec<String>,
    /// This one, or a later one, is on stable storage.
    durable: usize,
    /// The latest that a call has answered.
    visible: usize,
}

impl Default for Fate {
    fn default() -> Self {
        Self { states: vec![ABSENT.into()], durable: 0, visible: 0 }
    }
}

impl Fate {
    fn is(&mut self, state: &str) {
        *self = Self { states: vec![state.into()], durable: 0, visible: 0 };
    }

    fn may_be(&self) -> &[String] {
        &self.states[self.durable..]
    }
}

/// All ids up to a moment of the recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    fates: BTreeMap<ClaimId, Fate>,
    /// What was visible when a call began that makes it durable.
    barriers: HashMap<String, BTreeMap<ClaimId, usize>>,
    /// All lines so far.
    lines: String,
}

impl History {
    /// The lines of the journal that lead here.
    pub(crate) fn written(&self) -> &str {
        &self.lines
    }

    pub(crate) fn read(lines: &str) -> Self {
        let mut history = Self::default();
        lines.lines().for_each(|line| history.note(line));
        history
    }

    /// Goes on by one line of the journal.
    pub(crate) fn note(&mut self, line: &str) {
        self.lines.extend([line, "\n"]);
        let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        match verb {
            "try" => {
                let (id, state) = read(rest);
                self.fates.entry(id).or_default().states.push(state);
            }
            "sure" | "seen" => {
                let fate = self.fates.get_mut(&ClaimId::parse(rest).unwrap()).unwrap();
                fate.visible = fate.states.len() - 1;
                if verb == "sure" {
                    fate.durable = fate.visible;
                }
            }
            "barrier" => {
                let visible = self.fates.iter().map(|(id, fate)| (*id, fate.visible)).collect();
                self.barriers.insert(rest.to_owned(), visible);
            }
            "lasting" => {
                for (id, visible) in self.barriers.remove(rest).unwrap() {
                    let fate = self.fates.get_mut(&id).unwrap();
                    fate.durable = fate.durable.max(visible);
                }
            }
            "opened" => {
                let found = rest.split('\t').filter(|entry| !entry.is_empty()).map(read).collect();
                self.check(&found).unwrap_or_else(|fault| panic!("a kill alone lost something: {fault}"));
                for (id, fate) in &mut self.fates {
                    fate.is(found.get(id).map_or(ABSENT, String::as_str));
                }
            }
            _ => panic!("no journal has {line:?}"),
        }
    }

    /// What is wrong with a store that holds just these records.
    pub(crate) fn check(&self, found: &BTreeMap<ClaimId, String>) -> Result<(), String> {
        for (id, state) in found {
            let fate = self.fates.get(id).ok_or_else(|| format!("{id} was never begun, and is {state}"))?;
            if !fate.may_be().contains(state) {
                return Err(format!("{id} is {state:?}, and may be {:?}", fate.may_be()));
            }
        }
        for (id, fate) in self.fates.iter().filter(|(id, _)| !found.contains_key(id)) {
            if !fate.may_be().iter().any(|state| state == ABSENT) {
                return Err(format!("{id} is absent, and may be {:?}", fate.may_be()));
            }
        }
        Ok(())
    }

    /// How many ids are promised to be there.
    pub(crate) fn promised(&self) -> usize {
        let promised = |fate: &&Fate| fate.may_be().iter().all(|state| state != ABSENT);
        self.fates.values().filter(promised).count()
    }
}

/// `ID STATE`
fn read(entry: &str) -> (ClaimId, String) {
    let (id, state) = entry.split_once(' ').unwrap();
    (ClaimId::parse(id).unwrap(), state.to_owned())
}
