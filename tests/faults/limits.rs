//! Too few file descriptors, too little memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::place::run;
use crate::proc::client::Client;
use crate::proc::upstream::Upstream;
use crate::proc::{Home, Proxy, within};
use crate::stream::{Habits, Stream};
use crate::trial::{Trial, look};

const MIB: u64 = 1024 * 1024;

fn open_files(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid().as_raw_nonzero())).unwrap().count()
}

fn allow_files(proxy: &Proxy, count: usize) {
    run("prlimit", &["--pid", &proxy.pid().as_raw_nonzero().to_string(), &format!("--nofile={count}:")]);
}

/// Processor time of a process, in seconds.
fn worked(proxy: &Proxy) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid().as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Whoever is in hears that the upstream can't be reached; whoever is not waits
/// in the queue of the kernel; the store needs none and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_mail_is_deferred_and_nothing_fails() {
    let upstream = Upstream::start().await;
    // A connection for each message: a kept one would need no descriptor.
    let home = Home::new(upstream.address, "").env("MAILONCE_UPSTREAM__POOL_SIZE", "0");
    let proxy = home.start(None).await;
    let idle = open_files(&proxy);
    let habits = Habits::default();
    let clients = habits.clients;
    let stream = Stream::start(proxy.address, habits);
    stream.taken(20).await;
    let trial = Trial { upstream, home, proxy, stream };
    allow_files(&trial.proxy, idle + clients);
    trial.stream.hears("451 4.4.1 [UPSTREAM] ").await;
    assert!(trial.stream.book().put_off.keys().any(|reply| reply.contains("Too many open files")));

    let mut outside: Vec<_> = Vec::new();
    for _ in 0..clients {
        outside.push(tokio::spawn(Client::connect(trial.proxy.address)));
    }
    let (work, lines) = (worked(&trial.proxy), trial.lines("no connection can be accepted"));
    trial.logs("no connection can be accepted").await;
    let more = || (trial.lines("no connection can be accepted") >= lines + 2).then_some(());
    look("it goes on trying", more).await;
    let work = worked(&trial.proxy) - work;
    println!("{work:.2} s of processor time in about two seconds, with {clients} busy clients");

    allow_files(&trial.proxy, 1024);
    for client in outside {
        within("it is let in", client).await.unwrap().expect("a session");
    }
    assert_eq!(trial.lines("the claim store has failed"), 0);
    let book = trial.judge_without_losses().await;
    assert!(!book.heard("451 4.3.0 [STORE]"), "{book:?}");
}

/// A control group with a limit on memory, removed in the end.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mailonce-test-{}-{number}", std::process::id());
        let root = PathBuf::from("/sys/fs/cgroup/memory");
        assert!(
            root.join("tasks").exists(),
            "the memory controller of cgroup v1 is needed at {}",
            root.display()
        );
        let group = Self(root.join(name));
        std::fs::create_dir(&group.0).expect("root may make a control group");
        std::fs::write(group.0.join("memory.limit_in_bytes"), limit.to_string()).unwrap();
        group
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).unwrap()
    }

    /// How often a process in it was killed.
    fn kills(&self) -> u64 {
        let text = self.read("memory.oom_control");
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).map_or(0, |count| count.parse().unwrap())
    }

    /// A home whose proxies run in it.
    fn home(&self, home: Home) -> Home {
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        home.started_by(&["sh", "-c", &join])
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not before the last process in it has gone.
        for _ in 0..1000 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// One large e-mail, until it is taken; its reply.
async fn large(address: std::net::SocketAddr, number: usize, block: Arc<String>) -> std::io::Result<String> {
    let mut client = Client::connect(address).await?;
    client.envelope(&["ann@user.test"]).await?;
    let head = format!(
        "From: app@app.test\r\nSubject: large\r\nMessage-ID: <{number}@app.test>\r\n\
         Date: Sat, 21 Nov 2026 08:15:00 +0000\r\nX-Idempotency-Key: large-{number}\r\nX-Letter: large-{number}\r\n\r\n{number}\r\n"
    );
    client.write(head.as_bytes()).await?;
    for _ in 0..128 {
        client.write(block.as_bytes()).await?;
    }
    client.write(b".\r\n").await?;
    client.reply().await
}

fn block() -> Arc<String> {
    Arc::new(format!("{}\r\n", "x".repeat(62)).repeat(1024))
}

/// With the memory for messages bounded, the process stays within what it may
/// have; temporary files take what is left for their cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_its_memory_it_is_not_killed() {
    let group = Group::new(96 * MIB);
    let upstream = Upstream::start().await;
    let home = group.home(Home::new(upstream.address, "[limits]\nin_memory_total = \"16 MiB\"").with_admin());
    let trial = Trial::start(upstream, home, Habits::default()).await;
    let mut messages = JoinSet::new();
    for number in 0..16 {
        let (address, block) = (trial.proxy.address, block());
        messages.spawn(async move {
            loop {
                let heard = large(address, number, block.clone()).await.expect("the proxy lives");
                if heard.starts_with('2') {
                    return (number, heard);
                }
                assert!(heard.starts_with("452 4.3.1 "), "{heard}");
            }
        });
    }
    while let Some(sent) = within("large messages", messages.join_next()).await {
        let (number, heard) = sent.unwrap();
        trial.stream.note(&format!("large-{number}"), heard);
    }
    let most: u64 = group.read("memory.max_usage_in_bytes").trim().parse().unwrap();
    println!("{} MiB at most, cache included, {} resident", most / MIB, trial.proxy.memory("VmHWM") / MIB);
    assert_eq!(group.kills(), 0);
    trial.readyz(200, "ready").await;
    trial.judge_without_losses().await;
}

/// Where it may take more than there is, the kernel kills it: a crash like any
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_for_its_memory_it_loses_nothing() {
    let group = Group::new(48 * MIB);
    let upstream = Upstream::start().await;
    let limits = "[limits]\nin_memory_total = \"512 MiB\"\nmemory_per_message = \"64 MiB\"";
    let home = group.home(Home::new(upstream.address, limits));
    let Trial { upstream, home, proxy, stream } = Trial::start(upstream, home, Habits::default()).await;
    let mut messages = JoinSet::new();
    for number in 0..16 {
        messages.spawn(large(proxy.address, number, block()));
    }
    proxy.crashed().await;
    assert!(group.kills() > 0, "something else has killed it");
    messages.abort_all();
    while messages.join_next().await.is_some() {}
    let home = home.started_by(&[]);
    let proxy = home.start(None).await;
    stream.turn_to(proxy.address);
    let trial = Trial { upstream, home, proxy, stream };
    for (key, _) in trial.upstream.counts().into_iter().filter(|(key, _)| key.starts_with("large")) {
        trial.stream.note(&key, "accepted before the end".to_owned());
    }
    trial.judge().await;
}
