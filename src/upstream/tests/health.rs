//! Whether the upstream is there, and who finds out.

use tokio::join;

use super::super::{Access, Prepared, Upstream, UpstreamFault};
use super::*;

fn upstream(far: &Far) -> Upstream {
    Upstream::new(settings(&[&far.address]), Access::default(), "relay.example".to_owned())
}

#[tokio::test]
async fn a_probe_is_spared_where_mail_has_told() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let (envelope, content) = (envelope(), content("x\r\n"));
    let play = async {
        let mut peer = far.greet(PIPELINING).await;
        peer.hear(GROUP).await;
        peer.say(GRANTED).await;
        peer.hear("x\r\n").await;
        peer
    };
    let (prepared, mut peer) = join!(upstream.prepare(None, &envelope, &content), play);
    let Ok(Prepared::Ready { transaction, .. }) = prepared else { panic!("{prepared:?}") };
    assert_eq!((upstream.busy_connections(), upstream.idle_connections()), (1, 0));
    // Nobody at the other end accepts another connection.
    upstream.probe_if_silent(Duration::from_secs(10)).await;
    let finish = async {
        peer.hear(".\r\n").await;
        peer.say("250 done\r\n").await;
    };
    let _ = join!(transaction.complete(), finish);
    assert_eq!((upstream.busy_connections(), upstream.idle_connections()), (0, 1));
    assert_eq!(upstream.outage(), None);
}

#[tokio::test]
async fn an_outage_lasts_until_something_answers() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    assert_eq!(upstream.outage(), None, "nobody has asked yet");
    let unwilling = async { far.accept().await.say("554 not here\r\n").await };
    join!(upstream.probe_if_silent(Duration::ZERO), unwilling);
    assert!(matches!(upstream.outage(), Some(UpstreamFault::Unwilling { .. })), "{:?}", upstream.outage());
    upstream.probe_if_silent(Duration::from_secs(10)).await;
    assert!(upstream.outage().is_some(), "it was asked just now");
    let willing = async { far.greet(PLAIN).await.hear("QUIT\r\n").await };
    join!(upstream.probe_if_silent(Duration::ZERO), willing);
    assert_eq!(upstream.outage(), None);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_answered_ends() {
    let far = Far::listen().await;
    let upstream = upstream(&far);
    let started = tokio::time::Instant::now();
    upstream.probe_if_silent(Duration::ZERO).await;
    assert!(started.elapsed() <= Duration::from_secs(31), "{:?}", started.elapsed());
    assert!(matches!(upstream.outage(), Some(UpstreamFault::TimedOut { .. })), "{:?}", upstream.outage());
}
