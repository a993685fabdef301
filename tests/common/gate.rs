//! Where a test stops a session of the scripted upstream.

use std::sync::Arc;

use super::Watched;
use super::upstream::Do;

/// Stops a session until the test lets it on.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Watched<(bool, Option<Then>)>>);

#[derive(Clone, Debug)]
enum Then {
    GoOn,
    Say(String),
    Drop,
}

impl Gate {
    /// Waits until a session stands here.
    pub fn reached(&self) {
        self.0.wait(|(reached, _)| reached.then_some(())).expect("nobody came to the gate");
    }

    /// Lets the session go on as if nothing had been.
    pub fn open(&self) {
        self.0.change(|(_, then)| *then = Some(Then::GoOn));
    }

    /// Lets the session go on with this reply.
    pub fn say(&self, reply: &str) {
        self.0.change(|(_, then)| *then = Some(Then::Say(reply.to_owned())));
    }

    /// Closes the connection.
    pub fn close(&self) {
        self.0.change(|(_, then)| *then = Some(Then::Drop));
    }
}

/// Waits at the gate, and does as the test says.
pub fn pass(gate: &Gate) -> Option<Do> {
    gate.0.change(|(reached, _)| *reached = true);
    match gate.0.wait(|(_, then)| then.clone()).expect("the gate was never opened") {
        Then::GoOn => None,
        Then::Say(reply) => Some(Do::Say(reply)),
        Then::Drop => Some(Do::Drop),
    }
}
