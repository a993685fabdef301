//! A proxy that is stopped by a signal, as a debugger, a snapshot of its
//! machine or `docker pause` does it, for longer than anybody waits.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Notify;

use crate::proc::client::{Client, Letter};
use crate::proc::upstream::{Answer, Trigger, Upstream};
use crate::proc::within;
use crate::proc::{Home, Proxy};
use crate::stream::Habits;
use crate::trial::{Trial, look};

/// How long the proxy waits for a reply of the upstream.
const COMPLETION: Duration = Duration::from_millis(800);

fn home(upstream: &Upstream) -> Home {
    Home::new(upstream.address, "[upstream.timeouts]\ncompletion = \"800ms\"").with_admin()
}

/// Stops it, and waits until its last thread has stopped.
async fn stop(proxy: &Proxy) {
    proxy.signal(Signal::STOP);
    let tasks = format!("/proc/{}/task", proxy.pid().as_raw_nonzero());
    let stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat"));
        stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    };
    let all = || std::fs::read_dir(&tasks).unwrap().all(|task| task.is_ok_and(stopped)).then_some(());
    look("it has stopped", all).await;
}

/// Clients give up and try again meanwhile; nothing arrives twice or is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_proxy_goes_on_where_it_was() {
    let upstream = Upstream::start().await;
    let home = home(&upstream);
    let habits = Habits { patience: Duration::from_millis(300), ..Habits::default() };
    let trial = Trial::start(upstream, home, habits).await;
    for _ in 0..3 {
        trial.upstream.until(Trigger::Accepted { more: 5, hold: false }).await;
        stop(&trial.proxy).await;
        // Each of four clients gives up four times: longer than the proxy itself waits.
        let broken = trial.stream.book().broken + 16;
        trial.stream.until("clients give up", |book| book.broken >= broken).await;
        trial.proxy.signal(Signal::CONT);
        trial.stream.taken(20).await;
    }
    trial.readyz(200, "ready").await;
    trial.judge().await;
}

/// A reply that came while it was stopped counts, though the time for it is
/// over; and one that never came is a doubt, which is sent no second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_came_meanwhile_counts() {
    let upstream = Upstream::start().await;
    let home = home(&upstream);
    let proxy = home.start(None).await;
    for (key, answers) in [("answered", true), ("silent", false)] {
        let told = Arc::new(Notify::new());
        upstream.script([Answer::AcceptWhen(told.clone())]);
        let mut client = Client::connect(proxy.address).await.unwrap();
        let letter = Letter::new(key);
        let before = upstream.mails().len();
        client.hand_over(&letter, "ann@user.test").await.unwrap();
        upstream.wait_for(before + 1).await;
        stop(&proxy).await;
        if answers {
            told.notify_one();
        }
        // The client waits for longer than the proxy may, and hears nothing.
        let heard = tokio::time::timeout(COMPLETION * 2, client.reply()).await;
        assert!(heard.is_err(), "{key}: a stopped proxy spoke: {heard:?}");
        proxy.signal(Signal::CONT);
        let heard = within("a reply", client.reply()).await.unwrap();
        let again = Client::connect(proxy.address).await.unwrap().send(&letter.again()).await.unwrap();
        if answers {
            assert_eq!((&*heard, &*again), ("250 2.0.0 took answered", "250 2.0.0 took answered"));
        } else {
            assert!(heard.starts_with("451 4.4.2 [IN-DOUBT] "), "{heard}");
            assert!(again.starts_with("250 2.0.0 [IN-DOUBT] "), "{again}");
        }
        assert_eq!(upstream.mails_of(key).len(), 1);
    }
    proxy.stop().await;
}
