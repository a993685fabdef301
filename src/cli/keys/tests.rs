//! Listing and showing, over a store that holds what a test puts in.

use clap::Parser;

use super::*;
use crate::cli::{Args, Command};
use crate::smtp::reply::Reply;
use crate::store::{
    Attempt, Census, Change, ClaimId, ClaimRequest, Claimed, Count, Durability, Fingerprint, Imported,
    Outcome, Query, Resolution, Selection, Settlement, State, StoreFault, Token,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_248_900_123);

/// Only reads; two records a page.
struct Shelf(Vec<Record>);

#[async_trait::async_trait]
impl Store for Shelf {
    async fn claim(&self, _: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn commit(&self, _: Token, _: Vec<ClaimId>, _: Timestamp) -> Result<(), StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn settle(
        &self,
        _: Token,
        _: Timestamp,
        _: Vec<Settlement>,
        _: Durability,
    ) -> Result<(), StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn release(&self, _: Token, _: Vec<ClaimId>) -> Result<(), StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn get(&self, id: ClaimId, _: Timestamp) -> Result<Option<Record>, StoreFault> {
        Ok(self.0.iter().find(|record| record.id == id).cloned())
    }

    async fn list(&self, query: Query, _: Timestamp) -> Result<(Vec<Record>, Option<ClaimId>), StoreFault> {
        let chosen = |record: &&Record| match &query.of {
            Selection::All => true,
            Selection::Key(key) => record.key == *key,
            Selection::Ids(ids) => ids.contains(&record.id),
        };
        let chosen = self.0.iter().filter(chosen);
        let behind = chosen.filter(|record| query.after.is_none_or(|after| record.id > after));
        let page: Vec<Record> = behind.take(2).cloned().collect();
        let next = page.last().map(|record| record.id).filter(|_| page.len() == 2);
        Ok((page, next))
    }

    async fn forget(&self, _id: ClaimId, _at: Timestamp) -> Result<Change, StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn resolve(&self, _id: ClaimId, _as: Resolution, _at: Timestamp) -> Result<Change, StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn import(&self, _records: Vec<Record>, _now: Timestamp) -> Result<Imported, StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn count(&self, _deltas: Vec<Count>) -> Result<(), StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn counts(&self, _since: Timestamp) -> Result<Vec<Count>, StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn census(&self) -> Result<Census, StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn sweep(&self, _: Timestamp, _: usize) -> Result<usize, StoreFault> {
        Ok(0)
    }

    async fn close(&self) -> Result<(), StoreFault> {
        Ok(())
    }
}

fn record(number: u8, key: &str, recipient: &str, state: State) -> Record {
    let minute = 60_000;
    let seen = Timestamp::from_millis(NOW.as_millis() - 10 * minute + u64::from(number) * minute);
    Record {
        id: ClaimId([number; 32]),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: key.into(),
        recipient: recipient.into(),
        sender: "shop@example.com".into(),
        rule: String::new(),
        fingerprint: Fingerprint([0xfe; 32]),
        state,
        upstream: "smtp.example.com:25".into(),
        message_id: Some("<a@b>".into()),
        date: None,
        size: 1234,
        attempts: vec![Attempt { at: seen, reply: "250 2.0.0 queued".into() }],
        attempt_count: 1,
        first_seen: seen,
        last_seen: seen,
        settled_at: Some(seen),
        duplicates: 31,
        window: Duration::from_secs(3600),
        expires: seen.plus(Duration::from_secs(3600)),
        delivered: Vec::new(),
        suppressed: Vec::new(),
    }
}

fn shelf() -> Shelf {
    let holder = Token { owner: 1, attempt: 1 };
    let reply = |code, text: &str| Reply::new(code, text);
    Shelf(vec![
        record(
            1,
            "order-1",
            "ann@example.com",
            State::Settled(Outcome::Accepted(reply(250, "2.0.0 queued\n2.0.0 ok"))),
        ),
        record(
            2,
            "order-2",
            "Bob@Example.com",
            State::Settled(Outcome::InDoubt(reply(451, "4.4.2 [IN-DOUBT]"))),
        ),
        record(3, "order-1", "bob@example.com", State::Pending { holder, lease_until: NOW }),
        record(
            4,
            "otp\n\u{1b}[31m",
            "bob@bücher.example",
            State::Settled(Outcome::Refused(reply(550, "5.1.1 no"))),
        ),
        record(5, "x", "", State::Committing { holder }),
    ])
}

fn ask(arguments: &[&str]) -> Result<String, CliFault> {
    let args = Args::try_parse_from(["mailonce", "keys"].iter().chain(arguments)).unwrap();
    let Command::Keys(args) = args.command else { unreachable!("keys was asked for") };
    let mut out = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        match &args.command {
            KeysCommand::List(args) => list(&shelf(), args, NOW, &mut out).await,
            KeysCommand::Show(args) => show(&shelf(), args, NOW, &mut out).await,
        }
    })?;
    Ok(String::from_utf8(out).unwrap())
}

/// The first two digits of the ids that were listed.
fn ids(arguments: &[&str]) -> Vec<String> {
    let arguments: Vec<_> = ["list", "--json"].iter().chain(arguments).copied().collect();
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    ask(&arguments).unwrap().lines().map(|line| parse(line)["id"].as_str().unwrap()[..2].to_owned()).collect()
}

#[test]
fn filters_narrow_and_the_newest_comes_first() {
    assert_eq!(ids(&[]), ["05", "04", "03", "02", "01"]);
    assert_eq!(ids(&["--limit", "2"]), ["05", "04"]);
    assert_eq!(ids(&["--limit", "0"]).len(), 5);
    assert_eq!(ids(&["--state", "in_doubt"]), ["02"]);
    assert_eq!(ids(&["--state", "in-doubt"]), ["02"]);
    assert_eq!(ids(&["--state", "committing"]), ["05"]);
    assert_eq!(ids(&["--tenant", "Shop"]), [""; 0]);
    assert_eq!(ids(&["--tenant", "shop"]).len(), 5);
    assert_eq!(ids(&["--recipient", "BOB@example.com"]), ["03", "02"]);
    assert_eq!(ids(&["--recipient", "bob@xn--bcher-kva.example"]), ["04"]);
    assert_eq!(ids(&["--recipient", "*@example.com"]), ["03", "02", "01"]);
    assert_eq!(ids(&["--key", "order-?"]), ["03", "02", "01"]);
    assert_eq!(ids(&["--key", "Order-*"]), [""; 0]);
    assert_eq!(ids(&["--since", "7m"]), ["05", "04", "03"]);
}

#[test]
fn a_record_in_json_has_the_fields_of_the_interface() {
    let line = ask(&["list", "--json", "--state", "accepted"]).unwrap();
    let id = "01".repeat(32);
    let print = "fe".repeat(32);
    let golden = format!(
        "{{\"id\":\"{id}\",\"tenant\":\"shop\",\"strategy\":\"header\",\"key\":\"order-1\",\
         \"recipient\":\"ann@example.com\",\"sender\":\"shop@example.com\",\"rule\":null,\"fingerprint\":\"{print}\",\
         \"state\":\"accepted\",\"reply\":\"250 2.0.0 queued 2.0.0 ok\",\"upstream\":\"smtp.example.com:25\",\
         \"message_id\":\"<a@b>\",\"size\":1234,\"attempts\":[{{\"at\":\"2026-11-21T08:06:00.123Z\",\
         \"reply\":\"250 2.0.0 queued\"}}],\"first_seen\":\"2026-11-21T08:06:00.123Z\",\
         \"last_seen\":\"2026-11-21T08:06:00.123Z\",\"duplicates\":31,\"expires\":\"2026-11-21T09:06:00.123Z\",\
         \"settled_at\":\"2026-11-21T08:06:00.123Z\",\"window_ms\":3600000,\
         \"reply_wire\":\"Mi4wLjAgcXVldWVkCjIuMC4wIG9r\"}}\n"
    );
    assert_eq!(line, golden);
}

#[test]
fn a_table_is_aligned_and_harmless() {
    let golden = "\
ID                STATE    LAST SEEN (UTC)       TENANT  RECIPIENT           STRATEGY  KEY              DUPLICATES
0404040404040404  refused  2026-11-21 08:09:00Z  shop    bob@bücher.example  header    otp\\n\\u{1b}[31m  31
0303030303030303  pending  2026-11-21 08:08:00Z  shop    bob@example.com     header    order-1          31
1 more; see them with --limit 0
";
    let some = ask(&["list", "--recipient", "bob@*", "--limit", "2"]).unwrap();
    assert_eq!(some, golden);
    assert_eq!(ask(&["list", "--tenant", "nobody"]).unwrap(), "no records\n");
    assert_eq!(ask(&["list", "--tenant", "nobody", "--json"]).unwrap(), "");
}

#[test]
fn show_finds_by_id_prefix_and_key() {
    let full = "02".repeat(32);
    for what in [full.as_str(), "02020202", "order-2"] {
        let text = ask(&["show", what]).unwrap();
        assert!(text.starts_with(&format!("id           {full}\nstate        in_doubt\n")), "{text}");
        assert!(text.contains("attempt      2026-11-21T08:07:00.123Z  250 2.0.0 queued\n"), "{text}");
    }
    let several = ask(&["show", "order-1"]).unwrap();
    assert!(several.ends_with("2 records match; show one by its id\n"), "{several}");
    assert_eq!(ask(&["show", "order-1", "--json"]).unwrap().lines().count(), 2);
    for what in ["0202020", "ffffffff", "order", &"ff".repeat(32), &"é".repeat(32)] {
        let fault = ask(&["show", what]).unwrap_err().to_string();
        assert!(fault.starts_with("no record has the id or key"), "{fault}");
    }
    assert!(ask(&["show", "05050505"]).unwrap().contains("(the whole message)"));
}
