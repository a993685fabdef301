//! Clients and an upstream for `bench/soak`, which starts this program with the
//! arguments PROXY UPSTREAM RATE SECONDS KNOWN FORGOTTEN: two addresses,
//! messages a second (0: as many as go through, without mischief), how long, and
//! the seconds within which the proxy surely knows a key again and after which
//! it surely has forgotten it. It writes a JSON object every five seconds, and
//! at the end one with `faults`. Started with anything else it does nothing.

#![allow(clippy::unwrap_used, reason = "a lock is only poisoned by a bug of this program")]

mod books;
mod crowd;
mod letter;
mod sender;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use books::Books;
use crowd::Plan;
use upstream::Upstream;

type Failure = Box<dyn std::error::Error>;

/// Between two lines of figures.
const FIGURES: Duration = Duration::from_secs(5);

/// The highest rate that the books have room for where none is set.
const FASTEST: f64 = 20_000.0;

fn main() -> Result<(), Failure> {
    // Cargo adds options such as `--bench`.
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [proxy, upstream, rate, seconds, known, forgotten] = &words[..] else {
        println!("`bench/soak` runs this program; bench/README.md tells about it");
        return Ok(());
    };
    let time = |text: &str| text.parse().map(Duration::from_secs_f64);
    let plan = Plan {
        proxy: proxy.parse()?,
        rate: rate.parse()?,
        time: time(seconds)?,
        known: time(known)?,
        forgotten: time(forgotten)?,
    };
    let upstream = upstream.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let fastest = if plan.rate > 0.0 { plan.rate } else { FASTEST };
        let books = Arc::new(Books::new((fastest * plan.time.as_secs_f64() * 1.1) as usize + 1_000));
        let serving = Upstream::new(books.clone(), plan.rate == 0.0).serve(upstream);
        tokio::select! {
            ended = serving => ended?,
            () = figures(books.clone()) => {}
            () = crowd::run(plan, books.clone()) => {}
        }
        let faults = books.judge();
        println!("{}", line(&books, Some(&faults)));
        Ok(())
    })
}

async fn figures(books: Arc<Books>) {
    let mut tick = tokio::time::interval(FIGURES);
    loop {
        tick.tick().await;
        println!("{}", line(&books, None));
    }
}

fn line(books: &Books, faults: Option<&[String]>) -> serde_json::Value {
    let mut line = json!({
        "letters": books.letters(),
        "sent": books.sent.load(Ordering::Relaxed),
        "arrived": books.arrived.load(Ordering::Relaxed),
    });
    if let Some(faults) = faults {
        line["totals"] = json!(books.totals());
        line["faults"] = json!(faults);
    }
    line
}
