//! AUTH as the session asks for it: verdicts, the pace of refusals, and what
//! is counted and logged.

use std::io::Write;
use std::sync::Mutex;

use argon2::password_hash::PasswordHasher;
use argon2::{Argon2, Params};
use tokio::task::JoinSet;
use tokio::time::{Instant, advance};

use super::*;
use crate::config::{Config, NamedFile};
use crate::metrics::Reading;
use crate::secret::Secret;
use crate::smtp::sasl::{Credentials, Mechanism};
use crate::upstream::Access;

/// A hash that is as cheap to check as can be.
fn hash(password: &str) -> String {
    let argon2 = Argon2::from(Params::new(8, 1, 1, None).unwrap());
    argon2.hash_password(password.as_bytes()).unwrap().to_string()
}

struct Scene {
    file: tempfile::NamedTempFile,
    authority: Authority,
    upstream: Upstream,
    metrics: Arc<Metrics>,
    authenticator: Authenticator,
}

impl Scene {
    /// Ann's password is `ann's`, and so on.
    fn new(users: &[&str]) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let scene = |authority| {
            let config = Config::parse("[upstream]\naddress = \"127.0.0.1:1\"", "m.toml", std::iter::empty());
            let metrics = Metrics::new();
            Self {
                authority,
                upstream: Upstream::new(config.unwrap().upstream, Access::default(), "proxy.test".to_owned()),
                authenticator: Authenticator::new(metrics.clone(), &SecretKey::new([7; 32])).unwrap(),
                metrics,
                file: tempfile::NamedTempFile::new().unwrap(),
            }
        };
        let lines: Vec<_> =
            users.iter().map(|user| format!("{user} = \"{}\"\n", hash(&format!("{user}'s")))).collect();
        std::fs::write(file.path(), lines.concat()).unwrap();
        let users =
            NamedFile { path: file.path().to_owned(), named_by: "m.toml:1: listener.users".to_owned() };
        let authority = Authority::load(&Auth::Local { users }).unwrap().unwrap();
        Self { file, ..scene(authority) }
    }

    async fn check_from(&self, address: &str, attempt: Result<Credentials, Malformed>) -> Verdict {
        let client = Client {
            address: SocketAddr::new(address.parse().unwrap(), 4711),
            session: "s1",
            listener: "submission",
        };
        self.authenticator.check(&self.authority, &self.upstream, client, &attempt.map(Arc::new)).await
    }

    async fn login_from(&self, address: &str, username: &str, password: &str) -> u16 {
        code(&self.check_from(address, Ok(credentials(username, password))).await)
    }

    async fn login(&self, username: &str, password: &str) -> u16 {
        self.login_from("192.0.2.1", username, password).await
    }

    fn counted(&self) -> Vec<String> {
        let text = self.metrics.render(&Reading::default());
        let lines = text.lines().filter_map(|line| line.strip_prefix("mailonce_auth_total{result="));
        let mut counts: Vec<_> = lines.map(str::to_owned).collect();
        counts.sort();
        counts
    }
}

fn credentials(username: &str, password: &str) -> Credentials {
    Credentials {
        mechanism: Mechanism::Plain,
        username: username.to_owned(),
        authzid: String::new(),
        secret: Secret::new(password.to_owned()),
    }
}

fn code(verdict: &Verdict) -> u16 {
    match verdict {
        Verdict::Accepted(reply) | Verdict::Refused { reply, .. } | Verdict::Deferred(reply) => reply.code(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_right_password_is_accepted_and_nothing_else() {
    let scene = Scene::new(&["ann", "bob"]);
    let since = Instant::now();
    assert_eq!(scene.login("ann", "ann's").await, 235);
    assert_eq!(since.elapsed(), Duration::ZERO, "who is welcome does not wait");
    for (username, password) in [("ann", "bob's"), ("Ann", "ann's"), ("ann", "ann's "), ("eve", "ann's")] {
        let since = Instant::now();
        assert_eq!(scene.login(username, password).await, 535, "{username}");
        assert_eq!(since.elapsed(), PAUSE);
    }
    assert_eq!(scene.counted(), ["\"accepted\"} 1", "\"deferred\"} 0", "\"refused\"} 4"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_acts_as_somebody_else() {
    let scene = Scene::new(&["ann"]);
    for (mechanism, authzid, want) in [
        (Mechanism::Plain, "ann", "235 2.7.0 authentication successful"),
        (Mechanism::Login, "", "235 2.7.0 authentication successful"),
        (Mechanism::Plain, "boss", "535 5.7.8 authentication credentials invalid"),
        (Mechanism::XOAuth2, "", "535 5.7.8 authentication credentials invalid"),
    ] {
        let attempt = Credentials { mechanism, authzid: authzid.to_owned(), ..credentials("ann", "ann's") };
        let verdict = scene.check_from("192.0.2.1", Ok(attempt)).await;
        let (Verdict::Accepted(reply) | Verdict::Refused { reply, challenge: None }) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(reply.to_string(), want);
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_checked_lately_is_not_hashed_again_until_the_file_changes() {
    let scene = Scene::new(&["ann"]);
    assert_eq!(scene.login("ann", "ann's").await, 235);
    // With nobody there to hash, only what is known is known.
    let permits = scene.authenticator.hashing.all();
    let busy = permits.acquire_many(u32::try_from(permits.available_permits()).unwrap()).await.unwrap();
    assert_eq!(scene.login("ann", "ann's").await, 235);
    let since = Instant::now();
    assert_eq!(scene.login("ann", "bob's").await, 454);
    assert_eq!(since.elapsed(), Duration::from_secs(10) + PAUSE);
    std::fs::write(scene.file.path(), format!("ann = \"{}\" # new\n", hash("ann's"))).unwrap();
    scene.authority.refresh();
    assert_eq!(scene.login("ann", "ann's").await, 454);
    drop(busy);
    assert_eq!(scene.login("ann", "ann's").await, 235);
    std::fs::write(scene.file.path(), "").unwrap();
    scene.authority.refresh();
    assert_eq!(scene.login("ann", "ann's").await, 535);
    assert_eq!(scene.counted(), ["\"accepted\"} 3", "\"deferred\"} 2", "\"refused\"} 1"]);
}

#[tokio::test(start_paused = true)]
async fn after_ten_failures_nothing_from_an_address_is_checked_for_a_minute() {
    let scene = Scene::new(&["ann"]);
    assert_eq!(scene.login("ann", "ann's").await, 235);
    for n in 0..10 {
        let attempt = if n % 2 == 0 {
            Err(Malformed::Syntax("this is not base64"))
        } else {
            Ok(credentials("eve", "x"))
        };
        let want = if n % 2 == 0 { 501 } else { 535 };
        let since = Instant::now();
        assert_eq!(code(&scene.check_from("192.0.2.1", attempt).await), want);
        assert_eq!(since.elapsed(), PAUSE, "malformed ones are slow, too");
    }
    assert_eq!(scene.login("ann", "ann's").await, 454, "even the right one");
    let malformed = scene.check_from("192.0.2.1", Err(Malformed::TooLong)).await;
    let Verdict::Deferred(reply) = malformed else { panic!("{malformed:?}") };
    assert_eq!(reply.to_string(), "454 4.7.0 too many failures, try again in a minute");
    assert_eq!(scene.login_from("192.0.2.2", "ann", "ann's").await, 235, "others are served");
    advance(Duration::from_secs(60)).await;
    assert_eq!(scene.login("ann", "ann's").await, 235);
    assert_eq!(scene.counted(), ["\"accepted\"} 3", "\"deferred\"} 2", "\"refused\"} 10"]);
}

#[tokio::test(start_paused = true)]
async fn guessing_from_one_address_locks_nobody_out_elsewhere() {
    let scene = Scene::new(&["ann"]);
    for _ in 0..10 {
        assert_eq!(scene.login_from("192.0.2.66", "ann", "guess").await, 535);
    }
    assert_eq!(scene.login_from("192.0.2.66", "ann", "ann's").await, 454);
    assert_eq!(scene.login("ann", "ann's").await, 235);
}

#[tokio::test(start_paused = true)]
async fn who_is_known_does_not_wait_behind_guesses() {
    let scene = Arc::new(Scene::new(&["ann"]));
    assert_eq!(scene.login("ann", "ann's").await, 235);
    let permits = scene.authenticator.hashing.all();
    let _busy = permits.acquire_many(u32::try_from(permits.available_permits()).unwrap()).await.unwrap();
    let mut guesses = JoinSet::new();
    for n in 0..10 {
        let scene = scene.clone();
        guesses.spawn(async move { scene.login("eve", &format!("guess {n}")).await });
    }
    tokio::task::yield_now().await;
    let since = Instant::now();
    assert_eq!(scene.login("ann", "ann's").await, 235);
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn guessing_one_user_from_many_addresses_locks_out_only_strangers() {
    let scene = Arc::new(Scene::new(&["ann", "bob"]));
    assert_eq!(scene.login("ann", "ann's").await, 235);
    let mut guesses = JoinSet::new();
    for n in 0..200 {
        let (scene, address) = (scene.clone(), format!("198.51.100.{}", n / 5));
        let user = ["ann", "bob"][n % 2];
        guesses.spawn(async move { scene.login_from(&address, user, "guess").await });
    }
    assert_eq!(guesses.join_all().await, [535; 200]);
    assert_eq!(scene.login_from("192.0.2.9", "ann", "guess").await, 454);
    assert_eq!(scene.login_from("192.0.2.9", "bob", "bob's").await, 454, "nobody knows that this is bob");
    assert_eq!(scene.login_from("192.0.2.9", "ann", "ann's").await, 235, "who logged in lately still may");
    advance(Duration::from_secs(60)).await;
    assert_eq!(scene.login_from("192.0.2.9", "bob", "bob's").await, 235);
}

#[tokio::test(start_paused = true)]
async fn guesses_at_once_are_not_more_than_guesses_one_by_one() {
    let scene = Arc::new(Scene::new(&["ann"]));
    let mut guesses = JoinSet::new();
    for n in 0..40 {
        let scene = scene.clone();
        guesses.spawn(async move { scene.login("ann", &format!("guess {n}")).await });
    }
    let codes = guesses.join_all().await;
    assert_eq!(codes.iter().filter(|code| **code == 535).count(), 10);
    assert_eq!(codes.iter().filter(|code| **code == 454).count(), 30);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_says_who_failed_and_that_an_address_is_kept_out_once() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // While there is only one, lines that another test's thread reaches first are switched off for all.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let scene = Arc::new(Scene::new(&["ann"]));
    scene.login("ann", "ann's").await;
    for _ in 0..12 {
        scene.login("eve", "hunter2").await;
    }
    let mut elsewhere = JoinSet::new();
    for n in 0..90 {
        let (scene, address) = (scene.clone(), format!("198.51.100.{}", n / 9));
        elsewhere.spawn(async move { scene.login_from(&address, "eve", "hunter2").await });
    }
    elsewhere.join_all().await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let of = |what: &str| text.lines().filter(|line| line.contains(what)).collect::<Vec<_>>();
    assert_eq!(of(" AUTH failed user").len(), 100, "{text}");
    for part in ["eve", "192.0.2.1", "submission", "s1"] {
        assert!(of(" AUTH failed user")[0].contains(part), "{part}: {text}");
    }
    assert_eq!(of("AUTH failed too often from this address").len(), 1, "{text}");
    assert_eq!(of("a user failed to log in too often").len(), 1, "{text}");
    assert!(!text.contains("hunter2") && !text.contains("ann's") && !text.contains("argon2id"), "{text}");
}
