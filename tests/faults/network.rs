//! Loss and partition between proxy and upstream: both in a network namespace
//! of the test's own, with rules that drop packets to and from the upstream's
//! address. Nobody is told: packets are just gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::place::run;
use crate::proc::Home;
use crate::proc::upstream::Upstream;
use crate::stream::Habits;
use crate::trial::Trial;

/// Where the upstream is, in the namespace.
const UPSTREAM: &str = "127.0.0.2:2525";

/// A network namespace, gone when dropped.
struct Net(String);

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let net = Self(format!("mailonce-test-{}-{number}", std::process::id()));
        run("ip", &["netns", "add", &net.0]);
        run("ip", &["-n", &net.0, "link", "set", "lo", "up"]);
        net.rules("add table ip faults");
        net.rules("add chain ip faults in { type filter hook input priority 0; }");
        net
    }

    fn rules(&self, command: &str) {
        run("ip", &["netns", "exec", &self.0, "nft", command]);
    }

    /// Drops packets to and from the upstream: all, or so many of ten.
    fn lose(&self, of_ten: Option<u8>) {
        let chance = of_ten.map_or(String::new(), |count| format!("numgen random mod 10 < {count} "));
        for side in ["saddr", "daddr"] {
            self.rules(&format!("add rule ip faults in ip {side} 127.0.0.2 {chance}counter drop"));
        }
    }

    fn heal(&self) {
        self.rules("flush chain ip faults in");
    }

    /// How many packets were dropped since.
    fn lost(&self) -> u64 {
        let text = run("ip", &["netns", "exec", &self.0, "nft", "list", "ruleset"]);
        let counts = text.split("packets ").skip(1).map(|rest| rest.split(' ').next().unwrap());
        counts.map(|count| count.parse::<u64>().unwrap()).sum()
    }

    /// Does something on a thread that is in it. Sockets stay where they were
    /// made.
    fn within<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        use std::os::fd::AsFd;
        let space = std::fs::File::open(format!("/run/netns/{name}")).expect("the namespace");
        let inside = std::thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            work()
        });
        inside.join().expect("the thread")
    }

    async fn upstream(&self) -> Upstream {
        let listener = Self::within(&self.0, || std::net::TcpListener::bind(UPSTREAM).expect("a socket"));
        listener.set_nonblocking(true).unwrap();
        Upstream::on(tokio::net::TcpListener::from_std(listener).unwrap())
    }

    async fn trial(&self) -> Trial {
        let upstream = self.upstream().await;
        let timeouts = "[upstream.timeouts]\nconnect = \"1s\"\ngreeting = \"1s\"\nenvelope = \"1s\"\ndata = \"1s\"\n\
                        block = \"1s\"\ncompletion = \"2s\"";
        let home = Home::new(upstream.address, timeouts).started_by(&["ip", "netns", "exec", &self.0]);
        let name = self.0.clone();
        let dial =
            move |address: SocketAddr| Self::within(&name, move || std::net::TcpStream::connect(address));
        Trial::start(upstream, home, Habits { dial: Some(Arc::new(dial)), ..Habits::default() }).await
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A third of all packets are lost, and nobody notices but by the time it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_packets_cost_time_and_nothing_else() {
    let net = Net::new();
    let trial = net.trial().await;
    net.lose(Some(2));
    trial.stream.taken(30).await;
    let lost = net.lost();
    assert!(lost > 10, "only {lost} packets were lost");
    println!("{lost} packets were lost");
    net.heal();
    trial.judge().await;
}

/// The upstream is cut off in the middle of everything: what was not completed
/// is deferred, what was is in doubt and not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_defers_and_doubts_and_doubles_nothing() {
    let net = Net::new();
    let trial = net.trial().await;
    for _ in 0..2 {
        net.lose(None);
        trial.stream.hears("451 4.4.1 [UPSTREAM] ").await;
        net.heal();
        trial.stream.taken(20).await;
    }
    let (book, needless) = trial.judge().await;
    let doubtful = book.put_off.keys().filter(|reply| reply.contains("[IN-DOUBT]")).count();
    println!("{doubtful} heard of a doubt; {} of these had not arrived", needless.len());
}
