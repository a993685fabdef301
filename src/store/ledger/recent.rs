//! The latest settlements, so that they can be repeated after a fault.

use std::collections::{HashMap, VecDeque};

use super::super::{ClaimId, Token};

/// How many settlements are remembered.
const REPEATABLE: usize = 16_384;

/// Who settled what last, for the latest settlements, and what is to be known
/// of each.
#[derive(Debug)]
pub(super) struct Recent<T> {
    settlers: HashMap<ClaimId, (Token, T)>,
    order: VecDeque<(ClaimId, Token)>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { settlers: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Recent<T> {
    pub(super) fn remember(&mut self, id: ClaimId, token: Token, known: T) {
        self.settlers.insert(id, (token, known));
        self.order.push_back((id, token));
        if self.order.len() > REPEATABLE
            && let Some((id, token)) = self.order.pop_front()
            && self.of(&id, token).is_some()
        {
            self.settlers.remove(&id);
        }
    }

    /// Nothing more is to be known of it.
    pub(super) fn forget(&mut self, id: &ClaimId, token: Token) {
        if self.of(id, token).is_some() {
            self.settlers.remove(id);
        }
    }

    /// Who was the last, and what is to be known of it.
    pub(super) fn last(&self, id: &ClaimId) -> Option<(Token, &T)> {
        self.settlers.get(id).map(|(settler, known)| (*settler, known))
    }

    pub(super) fn of(&self, id: &ClaimId, token: Token) -> Option<&T> {
        self.settlers.get(id).filter(|(settler, _)| *settler == token).map(|(_, known)| known)
    }
}
