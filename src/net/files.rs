//! Open files: each connection is one, and so is each upstream connection and
//! each message that is not in memory.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Limits;

/// What the store, the log, listeners and libraries have open.
const OTHERS: u64 = 100;

/// Raises the limit on open files to what the system lets this process have,
/// for the usual soft limit of 1024 is less than the connections that are
/// allowed by default. Says in the log where that is not enough for `limits`.
pub fn raise(limits: &Limits) {
    let mut allowed = getrlimit(Resource::Nofile);
    if allowed.current != allowed.maximum {
        let raised = rustix::process::Rlimit { current: allowed.maximum, ..allowed };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => allowed.current = allowed.maximum,
            Err(error) => tracing::warn!(%error, "the limit on open files could not be raised"),
        }
    }
    let wanted = wanted(limits);
    if let Some(files) = allowed.current.filter(|&files| files < wanted) {
        tracing::warn!(
            files,
            wanted,
            "fewer files may be open than limits.max_connections may need; raise the limit (ulimit -n, \
             LimitNOFILE of systemd) or lower max_connections"
        );
    }
}

/// A client, its upstream connection and its temporary file.
fn wanted(limits: &Limits) -> u64 {
    3 * limits.max_connections as u64 + OTHERS
}
