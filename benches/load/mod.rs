//! Claims as a shop's mail would make them, for the benchmarks of the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mailonce::clock::{Clock, SystemClock};
use mailonce::config::{InDoubt, OnConflict};
use mailonce::smtp::reply::Reply;
use mailonce::store::{
    ClaimId, ClaimRequest, Claimed, Durability, Fingerprint, Names, Outcome, Settlement, Slot, Store, Token,
};

pub(crate) type Failure = Box<dyn std::error::Error + Send + std::marker::Sync>;

/// What the upstream says to each.
pub(crate) const ACCEPTED: &str = "2.0.0 Ok: queued as 4Xyz123abc";

/// How long one message took, up to where its last octet may leave.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    pub(crate) claim: Duration,
    pub(crate) commit: Duration,
}

/// The whole life of a message over and over, for `span`: claimed, committed,
/// settled.
pub(crate) async fn send(store: &dyn Store, span: Duration) -> Result<Vec<Took>, Failure> {
    let (first, begin, mut took) = (unused(), Instant::now(), Vec::new());
    while begin.elapsed() < span {
        let attempt = first.wrapping_add(took.len() as u64);
        took.push(send_one(store, Token { owner: 1, attempt }, slot(attempt)).await?);
    }
    Ok(took)
}

/// One message's life.
pub(crate) async fn send_one(store: &dyn Store, token: Token, slot: Slot) -> Result<Took, Failure> {
    let (id, now, start) = (slot.id, SystemClock.now(), Instant::now());
    let claimed = store.claim(request(token, slot)).await?;
    let claim = start.elapsed();
    if !matches!(claimed.first(), Some(Claimed::New { .. })) {
        return Err("an id was claimed twice".into());
    }
    store.commit(token, vec![id.into()], now).await?;
    let took = Took { claim, commit: start.elapsed() - claim };
    let outcome = Outcome::Accepted(Reply::new(250, ACCEPTED));
    let settlement = Settlement::new(id, outcome, "mx.example.net:25");
    store.settle(token, now, vec![settlement], Durability::Soon).await?;
    Ok(took)
}

/// Where numbers begin that no other writer has used, in this process or one
/// before it.
fn unused() -> u64 {
    static WRITERS: AtomicU64 = AtomicU64::new(0);
    let writer = WRITERS.fetch_add(1, Ordering::Relaxed) << 48;
    splitmix(writer ^ SystemClock.now().as_millis())
}

pub(crate) fn request(token: Token, slot: Slot) -> ClaimRequest {
    let at = SystemClock.now();
    // Past the day by which the clock of a measured sweep is ahead.
    let lease_until = at.plus(Duration::from_secs(48 * 3600));
    ClaimRequest { token, at, lease_until, slots: vec![slot], tenant_cap: None }
}

pub(crate) fn key(number: u64) -> String {
    format!("order-confirmation:{number}")
}

/// Spread like a hash, so that sled's tree is written to all over.
pub(crate) fn slot(number: u64) -> Slot {
    let mut id = [0; 32];
    let mut seed = number;
    for chunk in id.chunks_exact_mut(8) {
        seed = splitmix(seed);
        chunk.copy_from_slice(&seed.to_be_bytes());
    }
    Slot {
        id: ClaimId(id),
        former: Vec::new(),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: key(number),
        recipient: format!("customer-{number}@example.org"),
        sender: "shop@example.com".into(),
        client: "192.0.2.1:40000".into(),
        rule: String::new(),
        fingerprint: Fingerprint(id),
        marks: Vec::new(),
        names: Names::of_texts(
            Some(&format!("<{number}@mail.example.com>")),
            Some("Sat, 21 Nov 2026 08:15:00 +0000"),
        ),
        size: 20_000,
        window: Duration::from_secs(7 * 24 * 3600),
        unheard_window: Duration::from_secs(24 * 3600),
        on_conflict: OnConflict::Reject,
        in_doubt: InDoubt::Suppress,
    }
}

pub(crate) fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The value below which `percent` of all are.
pub(crate) fn percentile(took: &mut [Duration], percent: usize) -> Duration {
    took.sort_unstable();
    let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
    took.get(at).copied().unwrap_or_default()
}
