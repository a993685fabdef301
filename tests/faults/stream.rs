//! Clients that send one e-mail after the other, each until it is acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::proc::client::{Client, Letter};
use crate::proc::within;

/// Between two tries of one e-mail.
const PAUSE: Duration = Duration::from_millis(20);

/// What the clients heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Every 2xx, by key.
    pub(crate) taken: BTreeMap<String, Vec<String>>,
    /// Every other reply, and how often.
    pub(crate) put_off: BTreeMap<String, usize>,
    /// How often a connection ended, or a client waited no longer.
    pub(crate) broken: usize,
}

impl Book {
    /// Whether somebody heard a refusal or deferral that starts so.
    pub(crate) fn heard(&self, start: &str) -> bool {
        self.put_off.keys().any(|reply| reply.starts_with(start))
    }
}

/// How a client reaches a proxy.
pub(crate) type Dial = Arc<dyn Fn(SocketAddr) -> std::io::Result<std::net::TcpStream> + Send + Sync>;

/// How the clients behave.
#[derive(Clone)]
pub(crate) struct Habits {
    pub(crate) clients: usize,
    /// How long one waits for a reply before it gives the connection up.
    pub(crate) patience: Duration,
    /// Where a plain connection would not do.
    pub(crate) dial: Option<Dial>,
}

impl Default for Habits {
    fn default() -> Self {
        Self { clients: 4, patience: Duration::from_secs(30), dial: None }
    }
}

struct Shared {
    habits: Habits,
    address: watch::Receiver<SocketAddr>,
    over: AtomicBool,
    book: watch::Sender<Book>,
}

/// The clients.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    address: watch::Sender<SocketAddr>,
    clients: JoinSet<()>,
}

impl Stream {
    pub(crate) fn start(address: SocketAddr, habits: Habits) -> Self {
        let (address, addresses) = watch::channel(address);
        let book = watch::Sender::new(Book::default());
        let over = AtomicBool::new(false);
        let shared = Arc::new(Shared { habits, address: addresses, over, book });
        let mut clients = JoinSet::new();
        for number in 0..shared.habits.clients {
            clients.spawn(client(number, shared.clone()));
        }
        Self { shared, address, clients }
    }

    /// From now on a proxy is there.
    pub(crate) fn turn_to(&self, address: SocketAddr) {
        self.address.send_replace(address);
    }

    pub(crate) fn book(&self) -> Book {
        self.shared.book.borrow().clone()
    }

    /// Somebody beside the clients heard a 2xx.
    pub(crate) fn note(&self, key: &str, reply: String) {
        self.shared.book.send_modify(|book| book.taken.entry(key.to_owned()).or_default().push(reply));
    }

    /// Waits for what the clients hear.
    pub(crate) async fn until(&self, what: &str, heard: impl FnMut(&Book) -> bool) {
        let mut book = self.shared.book.subscribe();
        within(what, book.wait_for(heard)).await.expect("the clients live");
    }

    /// Waits until so many more e-mails were taken.
    pub(crate) async fn taken(&self, more: usize) {
        let enough = self.book().taken.len() + more;
        self.until("more e-mails are taken", |book| book.taken.len() >= enough).await;
    }

    /// Waits until somebody hears a reply that starts so, from now on.
    pub(crate) async fn hears(&self, start: &str) {
        let count = |book: &Book| -> usize {
            book.put_off.iter().filter(|(reply, _)| reply.starts_with(start)).map(|(_, times)| times).sum()
        };
        let before = count(&self.book());
        self.until(&format!("somebody hears {start}"), |book| count(book) > before).await;
    }

    /// Lets every client end the e-mail that it is at.
    pub(crate) async fn finish(mut self) -> Book {
        self.shared.over.store(true, Ordering::SeqCst);
        while let Some(ended) = within("what is owed goes through", self.clients.join_next()).await {
            ended.expect("a client");
        }
        self.book()
    }
}

async fn client(number: usize, shared: Arc<Shared>) {
    let mut session = None;
    for count in 1.. {
        deliver(&shared, &mut session, Letter::new(&format!("client-{number}-{count}"))).await;
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// Sends the letter until it is acknowledged.
async fn deliver(shared: &Shared, session: &mut Option<Client>, mut letter: Letter) {
    loop {
        let heard = timeout(shared.habits.patience, once(shared, session, &letter)).await;
        let reply = match heard {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => {
                *session = None;
                shared.book.send_modify(|book| book.broken += 1);
                pause().await;
                letter = letter.again();
                continue;
            }
        };
        if reply.starts_with('2') {
            let key = letter.key;
            return shared.book.send_modify(|book| book.taken.entry(key).or_default().push(reply));
        }
        assert!(reply.starts_with('4'), "{}: {reply}", letter.key);
        shared.book.send_modify(|book| *book.put_off.entry(reply).or_default() += 1);
        pause().await;
        letter = letter.again();
    }
}

/// What a client does between two tries; nothing is waited for.
async fn pause() {
    let _ = timeout(PAUSE, std::future::pending::<()>()).await;
}

async fn once(shared: &Shared, session: &mut Option<Client>, letter: &Letter) -> std::io::Result<String> {
    if session.is_none() {
        let address = *shared.address.borrow();
        *session = Some(match &shared.habits.dial {
            None => Client::connect(address).await?,
            Some(dial) => {
                let dialled = dial(address)?;
                dialled.set_nonblocking(true)?;
                Client::over(TcpStream::from_std(dialled)?).await?
            }
        });
    }
    session.as_mut().expect("just made").send(letter).await
}
