//! AUTH answered by the upstream (`auth = "passthrough"`).

use super::known::Known;
use crate::smtp::reply::Reply;
use crate::smtp::session::Verdict;
use crate::upstream::{Account, Login, Upstream, UpstreamFault};

/// Asks the upstream, and gives its answer back. While it can't be asked,
/// whoever it lately accepted is believed, and all others hear 454. An upstream
/// that is there and takes no AUTH at all is a mistake to be mended, no outage:
/// then nobody is believed.
pub(super) async fn check(known: &Known, upstream: &Upstream, credentials: &Account) -> Verdict {
    let scope = upstream.name();
    match upstream.login(credentials).await {
        Ok(Login::Accepted(reply)) => {
            known.remember(&scope, credentials);
            Verdict::Accepted(reply)
        }
        Ok(Login::Refused { reply, challenge }) => {
            known.forget(&scope, credentials);
            Verdict::Refused { reply, challenge }
        }
        Ok(Login::Deferred(reply)) => Verdict::Deferred(reply),
        Err(fault @ UpstreamFault::NoMechanism { .. }) => {
            tracing::error!(%fault, "no client can authenticate");
            deferred()
        }
        Err(fault) if known.has(&scope, credentials) => {
            tracing::warn!(%fault, "a client is believed, for the upstream accepted it lately");
            Verdict::Accepted(Reply::new(235, "2.7.0 accepted earlier; the upstream can't be asked now"))
        }
        Err(fault) => {
            tracing::warn!(%fault, "a client can't authenticate, for the upstream can't be asked");
            deferred()
        }
    }
}

/// Whether the upstream accepted them lately.
pub(super) fn is_known(known: &Known, upstream: &Upstream, credentials: &Account) -> bool {
    known.has(&upstream.name(), credentials)
}

/// Whether it accepted other credentials of this user lately: then these are
/// likely a guess.
pub(super) fn is_guess(known: &Known, upstream: &Upstream, credentials: &Account) -> bool {
    !is_known(known, upstream, credentials) && known.has_user(&upstream.name(), &credentials.username)
}

fn deferred() -> Verdict {
    Verdict::Deferred(Reply::new(454, "4.7.0 the upstream can't be asked who you are, try again"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::join;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Config;
    use crate::secret::Secret;
    use crate::smtp::sasl::{Credentials, Mechanism};
    use crate::upstream::Access;

    /// An upstream that says these lines, one for each that it hears and the
    /// first unasked, and then closes.
    struct Scripted {
        listener: TcpListener,
        upstream: Upstream,
        known: Known,
    }

    const UP: [&str; 2] = ["220 ready", "250-hello\r\n250 AUTH PLAIN"];
    const DOWN: [&str; 0] = [];

    impl Scripted {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let upstream = upstream_at(&listener.local_addr().unwrap().to_string());
            Self { listener, upstream, known: Known::new().unwrap() }
        }

        async fn check(&self, credentials: &Account, lines: &[&str]) -> Verdict {
            let play = async {
                let (stream, _) = self.listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                for line in lines {
                    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
                    stream.read_line(&mut String::new()).await.unwrap();
                }
            };
            join!(check(&self.known, &self.upstream, credentials), play).0
        }

        async fn answers(&self, credentials: &Account, answer: &str) -> Verdict {
            // The line behind the answer is the QUIT of a connection let go, or
            // its end; an accepted one is kept, and not waited for.
            if answer.starts_with("235") {
                self.upstream.close().await;
            }
            self.check(credentials, &[&UP[..], &[answer]].concat()).await
        }
    }

    fn upstream_at(address: &str) -> Upstream {
        let text = format!("[upstream]\naddress = \"{address}\"\n");
        let config = Config::parse(&text, "m.toml", std::iter::empty()).unwrap();
        Upstream::new(config.upstream, Access::default(), "relay.example".to_owned())
    }

    fn ann(password: &str) -> Account {
        Arc::new(Credentials {
            mechanism: Mechanism::Plain,
            username: "ann".to_owned(),
            authzid: String::new(),
            secret: Secret::new(password.to_owned()),
        })
    }

    fn refused(reply: &str) -> Verdict {
        Verdict::Refused { reply: Reply::new(535, reply), challenge: None }
    }

    #[tokio::test]
    async fn who_was_accepted_lately_is_believed_while_the_upstream_is_away() {
        let far = Scripted::start().await;
        assert_eq!(far.check(&ann("secret"), &DOWN).await, deferred(), "nobody knows");
        let welcome = Verdict::Accepted(Reply::new(235, "2.7.0 hello ann"));
        assert_eq!(far.answers(&ann("secret"), "235 2.7.0 hello ann").await, welcome);
        for lines in [&DOWN[..], &["421 busy"], &UP, &[UP[0], UP[1], "421 busy"], &["HTTP/1.1 400"]] {
            let verdict = far.check(&ann("secret"), lines).await;
            assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?} after {lines:?}");
            assert_eq!(far.check(&ann("guess"), lines).await, deferred(), "{lines:?}");
        }
        // Another upstream has not accepted it.
        let other = upstream_at("127.0.0.1:1");
        assert_eq!(check(&far.known, &other, &ann("secret")).await, deferred());
    }

    #[tokio::test]
    async fn who_was_refused_is_believed_no_more() {
        let far = Scripted::start().await;
        far.answers(&ann("secret"), "235 2.7.0 hello ann").await;
        let verdict = far.answers(&ann("secret"), "535 5.7.8 not any more").await;
        assert_eq!(verdict, refused("5.7.8 not any more"));
        assert_eq!(far.check(&ann("secret"), &DOWN).await, deferred());
    }

    #[tokio::test]
    async fn an_upstream_that_is_there_is_asked_whoever_is_known() {
        let far = Scripted::start().await;
        far.answers(&ann("secret"), "235 2.7.0 hello ann").await;
        let later = Verdict::Deferred(Reply::new(454, "4.7.1 later"));
        assert_eq!(far.answers(&ann("secret"), "454 4.7.1 later").await, later);
        // It does not take AUTH any more.
        assert_eq!(far.check(&ann("secret"), &["220 ready", "250 hello"]).await, deferred());
        // All that says nothing against who is known.
        assert!(matches!(far.check(&ann("secret"), &DOWN).await, Verdict::Accepted(_)));
    }
}
