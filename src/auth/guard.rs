//! Guessing kept slow: how often one address, and one user, may fail.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout};

/// Failures of one address within a [`WINDOW`] that are enough.
const ENOUGH: usize = 10;

/// The same of one user, from all addresses together. An address alone, or a
/// few, must not keep anybody out elsewhere: this is against guesses that come
/// from everywhere.
const ENOUGH_OF_A_USER: usize = 100;

/// Over which failures add up, and how long an address is kept out.
const WINDOW: Duration = Duration::from_secs(60);

/// How long an attempt waits until those before it are decided.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most addresses, and the most users, that are watched at a time.
const MOST: usize = 100_000;

/// Counts failures by address and by user. Guesses that are being checked
/// count like failures until they are decided: however many come at once, no
/// more than ten fail in a minute.
#[derive(Debug)]
pub(super) struct Guard {
    addresses: Watch<IpAddr>,
    users: Watch<User>,
    /// Makes a [`User`] of a name; keyed, so that nobody can find two names
    /// that share one.
    hasher: RandomState,
}

/// A user's name, in whatever case, as a hash: names are the client's to
/// choose, and long ones must not take more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct User(u64);

/// What an attempt is for all that we know before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It may be a guess.
    Guess,
    /// With these very credentials somebody was let in lately.
    Known,
}

/// Why an attempt is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There were too many failures.
    TooMany,
    /// Attempts before it are not decided yet, and take too long.
    Busy,
}

/// What a failure has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Another attempt may follow.
    Noted,
    /// It was the last one for now.
    Last,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            addresses: Watch::new(ENOUGH, Until::Later),
            users: Watch::new(ENOUGH_OF_A_USER, Until::Room),
            hasher: RandomState::new(),
        }
    }

    /// Waits until an attempt from this address may be checked. What is known
    /// waits for nobody, from when it is known; or else workers that all log in
    /// at once would wait for an upstream that is slow or away, ten by ten.
    pub(super) async fn address(
        &self,
        address: IpAddr,
        attempt: impl Fn() -> Attempt,
    ) -> Result<Turn<'_, IpAddr>, Refusal> {
        self.addresses.turn(network(address), attempt).await
    }

    /// Waits until an attempt to be this user may be checked.
    pub(super) async fn user(&self, name: &str) -> Result<Turn<'_, User>, Refusal> {
        let user = User(self.hasher.hash_one(name.to_lowercase()));
        self.users.turn(user, || Attempt::Guess).await
    }
}

/// What counts as one address: in IPv6 the network that one customer has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// How long there is no turn after the last failure that was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// A whole window from then.
    Later,
    /// Until the first of them is a window ago.
    Room,
}

struct Watch<K> {
    enough: usize,
    until: Until,
    /// The one touched last is at the front.
    seen: Mutex<LruCache<K, Record>>,
}

/// What is known of one address or user.
#[derive(Default)]
struct Record {
    /// When, within the last window; in order.
    failures: VecDeque<Instant>,
    /// Guesses that are being checked.
    pending: usize,
    /// No turn before.
    closed: Option<Instant>,
    /// Told when a guess was decided.
    decided: Arc<Notify>,
}

impl Record {
    fn refresh(&mut self, now: Instant) {
        while self.failures.front().is_some_and(|then| now.duration_since(*then) >= WINDOW) {
            self.failures.pop_front();
        }
        self.closed = self.closed.filter(|until| *until > now);
    }

    fn is_closed(&self, enough: usize) -> bool {
        self.closed.is_some() || self.failures.len() >= enough
    }

    /// Whether nothing in it matters any more.
    fn is_over(&self, now: Instant) -> bool {
        let recent = self.failures.back().is_some_and(|then| now.duration_since(*then) < WINDOW);
        let closed = self.closed.is_some_and(|until| until > now);
        self.pending == 0 && !recent && !closed
    }
}

/// How it stands with an attempt.
enum Standing<'g, K: Copy + Eq + Hash> {
    Now(Turn<'g, K>),
    Never,
    AfterThat(OwnedNotified),
}

impl<K: Copy + Eq + Hash> Watch<K> {
    fn new(enough: usize, until: Until) -> Self {
        // Room is taken as it is needed.
        Self { enough, until, seen: Mutex::new(LruCache::unbounded()) }
    }

    async fn turn(&self, who: K, attempt: impl Fn() -> Attempt) -> Result<Turn<'_, K>, Refusal> {
        let wait = async {
            loop {
                match self.stand(who, attempt()) {
                    Standing::Now(turn) => return Ok(turn),
                    Standing::Never => return Err(Refusal::TooMany),
                    Standing::AfterThat(decided) => decided.await,
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or(Err(Refusal::Busy))
    }

    fn stand(&self, who: K, attempt: Attempt) -> Standing<'_, K> {
        let mut seen = self.seen();
        let now = Instant::now();
        sweep(&mut seen, now);
        let record = seen.get_or_insert_mut(who, Record::default);
        record.refresh(now);
        if record.is_closed(self.enough) {
            return Standing::Never;
        }
        if attempt == Attempt::Guess {
            if record.failures.len() + record.pending >= self.enough {
                // Taken while the lock is held, so that no word of it is missed.
                return Standing::AfterThat(record.decided.clone().notified_owned());
            }
            record.pending += 1;
        }
        Standing::Now(Turn { watch: self, who, attempt })
    }

    /// An attempt has failed. Its turn is over with it: nobody gets in between.
    fn fail(&self, who: K) -> Failed {
        let mut seen = self.seen();
        let now = Instant::now();
        let record = seen.get_or_insert_mut(who, Record::default);
        record.refresh(now);
        record.failures.push_back(now);
        if record.failures.len() < self.enough {
            return Failed::Noted;
        }
        record.closed = match self.until {
            Until::Later => Some(now + WINDOW),
            Until::Room => record.failures.front().map(|first| *first + WINDOW),
        };
        Failed::Last
    }

    fn decided(&self, who: K, attempt: Attempt) {
        let mut seen = self.seen();
        // One that was crowded out has begun anew, if at all.
        let Some(record) = seen.peek_mut(&who) else { return };
        if attempt == Attempt::Guess {
            record.pending = record.pending.saturating_sub(1);
            record.decided.notify_waiters();
        }
        if record.is_over(Instant::now()) {
            seen.pop(&who);
        }
    }

    fn seen(&self) -> MutexGuard<'_, LruCache<K, Record>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of a few that nothing counts against any more, and of the oldest
/// where there are too many.
fn sweep<K: Copy + Eq + Hash>(seen: &mut LruCache<K, Record>, now: Instant) {
    for _ in 0..2 {
        let crowded = seen.len() >= MOST;
        if seen.peek_lru().is_some_and(|(_, record)| crowded || record.is_over(now)) {
            seen.pop_lru();
        }
    }
}

/// The leave to check one attempt; ends with it.
pub(super) struct Turn<'g, K: Copy + Eq + Hash> {
    watch: &'g Watch<K>,
    who: K,
    attempt: Attempt,
}

impl<K: Copy + Eq + Hash> Turn<'_, K> {
    /// The attempt has failed.
    pub(super) fn failed(self) -> Failed {
        self.watch.fail(self.who)
    }
}

impl<K: Copy + Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.watch.decided(self.who, self.attempt);
    }
}

impl<K> fmt::Debug for Watch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("until", &self.until).finish_non_exhaustive()
    }
}

impl<K: Copy + Eq + Hash> fmt::Debug for Turn<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn guess<'g>(guard: &'g Guard, address: &str) -> Result<Turn<'g, IpAddr>, Refusal> {
        guard.address(ip(address), || Attempt::Guess).await
    }

    async fn fail(guard: &Guard, address: &str) -> Result<Failed, Refusal> {
        guess(guard, address).await.map(Turn::failed)
    }

    async fn fail_as(guard: &Guard, name: &str) -> Result<Failed, Refusal> {
        guard.user(name).await.map(Turn::failed)
    }

    #[tokio::test(start_paused = true)]
    async fn ten_failures_in_a_minute_keep_an_address_out_for_the_next_one() {
        let guard = Guard::new();
        for _ in 0..9 {
            assert_eq!(fail(&guard, "192.0.2.1").await, Ok(Failed::Noted));
            advance(6 * SECOND).await;
        }
        // A success in between makes up for nothing.
        drop(guess(&guard, "192.0.2.1").await.unwrap());
        assert_eq!(fail(&guard, "192.0.2.1").await, Ok(Failed::Last));
        advance(59 * SECOND).await;
        assert_eq!(fail(&guard, "192.0.2.1").await, Err(Refusal::TooMany));
        assert!(guess(&guard, "192.0.2.2").await.is_ok(), "others are let in");
        // What was not checked was no failure.
        advance(SECOND).await;
        assert_eq!(fail(&guard, "192.0.2.1").await, Ok(Failed::Noted));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_do_not_add_up() {
        let guard = Guard::new();
        for _ in 0..30 {
            assert_eq!(fail(&guard, "192.0.2.1").await, Ok(Failed::Noted));
            advance(7 * SECOND).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_and_an_address_in_both_forms_are_one() {
        let guard = Guard::new();
        for n in 0..10 {
            fail(&guard, &format!("2001:db8::{n:x}")).await.unwrap();
            fail(&guard, ["192.0.2.1", "::ffff:192.0.2.1"][n % 2]).await.unwrap();
        }
        for kept_out in ["2001:db8::ffff:0:0:1", "192.0.2.1", "::ffff:192.0.2.1"] {
            assert_eq!(fail(&guard, kept_out).await, Err(Refusal::TooMany), "{kept_out}");
        }
        for other in ["2001:db8:0:1::1", "::ffff:192.0.2.2"] {
            assert_eq!(fail(&guard, other).await, Ok(Failed::Noted), "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_failures_keep_a_user_out_for_the_rest_of_the_minute() {
        let guard = Guard::new();
        for n in 0..100 {
            fail_as(&guard, ["ann", "ANN"][n % 2]).await.unwrap();
            advance(SECOND / 2).await;
        }
        assert_eq!(fail_as(&guard, "Ann").await, Err(Refusal::TooMany));
        assert!(guard.user("bob").await.is_ok());
        // The first is a minute ago now.
        advance(10 * SECOND).await;
        assert_eq!(fail_as(&guard, "ann").await, Ok(Failed::Last));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_come_at_once_no_more_than_ten_fail() {
        let guard = Arc::new(Guard::new());
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let guard = guard.clone();
            attempts.spawn(async move {
                let turn = guess(&guard, "192.0.2.1").await?;
                tokio::time::sleep(SECOND).await;
                Ok::<_, Refusal>(turn.failed())
            });
        }
        let ends = attempts.join_all().await;
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 10);
        assert_eq!(ends.iter().filter(|end| **end == Ok(Failed::Last)).count(), 1);
        assert_eq!(ends.iter().filter(|end| **end == Err(Refusal::TooMany)).count(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_come_at_once_all_that_succeed_do() {
        let guard = Arc::new(Guard::new());
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let guard = guard.clone();
            attempts.spawn(async move {
                let turn = guess(&guard, "192.0.2.1").await;
                tokio::time::sleep(SECOND).await;
                turn.is_ok()
            });
        }
        assert!(attempts.join_all().await.into_iter().all(|passed| passed));
        assert_eq!(guard.addresses.seen().len(), 0, "nothing is left of them");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_waits_for_no_guess() {
        let guard = Guard::new();
        let address = ip("192.0.2.1");
        let mut turns = Vec::new();
        for _ in 0..10 {
            turns.push(guess(&guard, "192.0.2.1").await.unwrap());
        }
        let since = Instant::now();
        for _ in 0..50 {
            turns.push(guard.address(address, || Attempt::Known).await.unwrap());
        }
        assert_eq!(since.elapsed(), Duration::ZERO);
        // It becomes known while it waits, with the first guess that is right.
        let calls = std::cell::Cell::new(0);
        let becomes_known = || match calls.replace(calls.get() + 1) {
            0 => Attempt::Guess,
            _ => Attempt::Known,
        };
        let first = turns.remove(0);
        let (turn, next) = tokio::join!(guard.address(address, becomes_known), async {
            drop(first);
            guard.addresses.stand(address, Attempt::Guess)
        });
        assert!(turn.is_ok() && matches!(next, Standing::Now(_)), "nobody has given up a turn for it");
        // When there were ten failures, it is not checked either.
        turns.drain(..9).for_each(|turn| {
            turn.failed();
        });
        drop((turn, turns, next));
        assert_eq!(fail(&guard, "192.0.2.1").await, Ok(Failed::Last));
        assert_eq!(guard.address(address, || Attempt::Known).await.err(), Some(Refusal::TooMany));
        advance(WINDOW).await;
        drop(guard.address(address, || Attempt::Known).await.unwrap());
        assert_eq!(guard.addresses.seen().len(), 0, "nothing is left of it");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_forever() {
        let guard = Guard::new();
        let mut turns = Vec::new();
        for _ in 0..10 {
            turns.push(guess(&guard, "192.0.2.1").await.unwrap());
        }
        let since = Instant::now();
        assert_eq!(fail(&guard, "192.0.2.1").await, Err(Refusal::Busy));
        assert_eq!(since.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_given_back() {
        let guard = Guard::new();
        let nth = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..MOST + 10 {
            guard.addresses.fail(nth(n));
            assert!(matches!(guard.addresses.stand(nth(n), Attempt::Guess), Standing::Now(_)));
        }
        assert!((MOST - 2..=MOST).contains(&guard.addresses.seen().len()));
        advance(WINDOW).await;
        for n in 0..MOST / 2 {
            assert!(matches!(guard.addresses.stand(nth(MOST + n), Attempt::Guess), Standing::Now(_)));
        }
        assert_eq!(guard.addresses.seen().len(), 0);
    }
}
