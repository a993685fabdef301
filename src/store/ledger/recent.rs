//! The latest settlements, so that they can be repeated after a fault.

use std::collections::{HashMap, VecDeque};

use super::super::{ClaimId, Token};

/// How many settlements are remembered.
const REPEATABLE: usize = 16_384;

/// Who settled what last, for the latest settlements.
#[derive(Debug, Default)]
pub(super) struct Recent {
    settlers: HashMap<ClaimId, Token>,
    order: VecDeque<(ClaimId, Token)>,
}

impl Recent {
    pub(super) fn remember(&mut self, id: ClaimId, token: Token) {
        self.settlers.insert(id, token);
        self.order.push_back((id, token));
        if self.order.len() > REPEATABLE
            && let Some((id, token)) = self.order.pop_front()
            && self.by(&id, token)
        {
            self.settlers.remove(&id);
        }
    }

    pub(super) fn by(&self, id: &ClaimId, token: Token) -> bool {
        self.settlers.get(id) == Some(&token)
    }
}
