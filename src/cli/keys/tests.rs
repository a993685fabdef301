//! Listing and showing, over a store that holds what a test puts in.

use std::time::Duration;

use clap::Parser;

use super::*;
use crate::cli::reach::OwnStore;
use crate::cli::record_view::{Duplicates, Held, sent_once, to_text};
use crate::cli::{Args, Command};
use crate::clock::{ManualClock, Timestamp};
use crate::smtp::reply::Reply;
use crate::store::memory::MemoryStore;
use crate::store::search::StateName;
use crate::store::view::RecordView;
use crate::store::{
    Attempt, AttemptKind, Census, Change, ClaimId, ClaimRequest, Claimed, Commit, Count, Durability,
    Fingerprint, Heard, Imported, Marks, Names, Outcome, Query, Record, Resolution, Selection, Settlement,
    State, Store, StoreFault, Suppression, Token, WrittenField,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_248_900_123);

/// Only reads; two records a page.
struct Shelf(Vec<Record>);

#[async_trait::async_trait]
impl Store for Shelf {
    async fn claim(&self, _: ClaimRequest) -> Result<Vec<Claimed>, StoreFault> {
        Err(StoreFault::Fenced)
    }

    async fn commit(&self, _: Token, _: Vec<Commit>, _: Timestamp) -> Result<(), StoreFault> {
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

    fn note_heard(&self, _: Vec<Heard>, _: Timestamp) {}

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

    async fn ready(&self) -> Result<(), StoreFault> {
        Ok(())
    }

    async fn sweep(&self, _: Timestamp, _: usize) -> Result<usize, StoreFault> {
        Ok(0)
    }

    async fn close(&self) -> Result<(), StoreFault> {
        Ok(())
    }
}

fn attempt(at: Timestamp, reply: &str) -> Attempt {
    Attempt { at, kind: AttemptKind::of_words(reply), reply: reply.to_owned() }
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
        names: Names::of_texts(Some("<a@b>"), None),
        series: Token { owner: 0, attempt: 0 },
        size: 1234,
        attempts: vec![attempt(seen, "250 2.0.0 queued")],
        attempt_count: 1,
        first_seen: seen,
        last_seen: seen,
        settled_at: Some(seen),
        duplicates: 31,
        window: Duration::from_secs(3600),
        unheard_window: Duration::ZERO,
        heard: true,
        expires: seen.plus(Duration::from_secs(3600)),
        marks: Marks::default(),
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

fn config(more: &str) -> Config {
    let text = format!("[upstream]\naddress = \"a:25\"\n{more}");
    Config::parse(&text, "m.toml", std::iter::empty()).unwrap()
}

/// Claims in a store, at [`NOW`].
fn over(store: impl Store) -> Reach {
    Reach::Store(OwnStore::over(Box::new(store), Box::new(ManualClock::new(NOW))).unwrap())
}

fn ask(arguments: &[&str]) -> Result<String, CliFault> {
    let args = Args::try_parse_from(["mailonce", "keys"].iter().chain(arguments)).unwrap();
    let Command::Keys(args) = args.command else { unreachable!("keys was asked for") };
    let mut out = Vec::new();
    match &args.command {
        KeysCommand::List(args) => list::run(&over(shelf()), args, &mut out)?,
        KeysCommand::Show(args) => show::run(&over(shelf()), &config(""), args, &mut out)?,
        other => unreachable!("{other:?}"),
    }
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
         \"reply\":\"250 2.0.0 queued\",\"kind\":\"accepted\"}}],\"first_seen\":\"2026-11-21T08:06:00.123Z\",\
         \"last_seen\":\"2026-11-21T08:06:00.123Z\",\"duplicates\":31,\"expires\":\"2026-11-21T09:06:00.123Z\","
    );
    assert!(line.starts_with(&golden), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_table_is_aligned_and_harmless() {
    let golden = "\
ID                STATE    LAST SEEN (UTC)       TENANT  RECIPIENT           STRATEGY  KEY              DUPLICATES
0404040404040404  refused  2026-11-21 08:09:00Z  shop    bob@bücher.example  header    otp\\n\\u{1b}[31m  31
0303030303030303  pending  2026-11-21 08:08:00Z  shop    bob@example.com     header    order-1          31
these are the newest; see all with --limit 0
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
        assert!(
            text.starts_with("in doubt: sent at 2026-11-21T08:07:00.123Z to smtp.example.com:25, "),
            "{text}"
        );
        assert!(text.contains(&format!("\n\nid           {full}\nstate        in_doubt\n")), "{text}");
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

fn first_line(record: &Record) -> String {
    sent_once(&RecordView::from(record), Held::ByTheProxy, Duplicates::Suppressed)
}

#[test]
fn the_first_line_says_whether_it_was_sent_once() {
    let accepted = || State::Settled(Outcome::Accepted(Reply::new(250, "2.0.0 queued")));
    let mut once = record(1, "k", "ann@b.test", accepted());
    once.duplicates = 3;
    let at = "at 2026-11-21T08:06:00.123Z by smtp.example.com:25";
    assert_eq!(first_line(&once), format!("accepted once, {at}; 3 duplicates suppressed since"));
    once.duplicates = 0;
    let tried = |replies: &[&str], state: State| {
        let attempt = |reply: &&str| attempt(NOW, reply);
        let attempts: Vec<Attempt> = replies.iter().map(attempt).collect();
        let attempt_count = replies.iter().filter(|reply| !reply.starts_with("resolved")).count() as u64;
        first_line(&Record { attempts, attempt_count, state, ..once.clone() })
    };
    let later = "no duplicate since";
    let doubt = "451 4.4.2 [IN-DOUBT] no answer";
    for (replies, says) in [
        (&["450 busy", "250 ok"][..], format!("accepted once (attempt 2), {at}; {later}")),
        (&["250 ok", "250 ok"], format!("accepted 2 times, the last, {at}; {later}")),
        (
            &[doubt, "250 ok"],
            format!("accepted (an earlier attempt is in doubt, so it may have arrived twice), {at}; {later}"),
        ),
        (
            &[doubt, "resolved as sent by an operator"],
            format!(
                "sent once to smtp.example.com:25, as an operator confirmed at 2026-11-21T08:06:00.123Z; {later}"
            ),
        ),
        (
            &[doubt, "resolved as not sent by an operator", "250 ok"],
            format!("accepted once (attempt 2), {at}; {later}"),
        ),
    ] {
        assert_eq!(tried(replies, accepted()), says);
    }
    let refused = || State::Settled(Outcome::Refused(Reply::new(550, "5.1.1 no")));
    assert!(tried(&["550 5.1.1 no"], refused()).starts_with("not sent: refused at "));
    assert!(tried(&[doubt, "550 5.1.1 no"], refused()).starts_with("not sent, unless by an earlier attempt"));
    let holder = Token { owner: 1, attempt: 1 };
    let committing = Record { state: State::Committing { holder }, ..once.clone() };
    assert!(first_line(&committing).starts_with("being sent right now"));
    assert!(
        sent_once(&RecordView::from(&committing), Held::ByNobody, Duplicates::Suppressed)
            .starts_with("perhaps sent")
    );
    assert!(tried(&[], State::Pending { holder, lease_until: NOW }).starts_with("not sent yet: "));
}

#[test]
fn what_was_only_observed_is_not_called_suppressed() {
    let mut record = record(1, "k", "ann@b.test", State::Settled(Outcome::Accepted(Reply::new(250, "ok"))));
    record.rule = "trial".into();
    let view = RecordView::from(&record);
    let config = config("[[rule]]\nname = \"trial\"\nmatch = { key = \"k\" }\nmode = \"observe\"\n");
    let duplicates = Duplicates::of(&config, &view);
    let first = sent_once(&view, Held::ByTheProxy, duplicates);
    assert!(first.ends_with("; 31 duplicates since, relayed all the same, for mode is observe"), "{first}");
    let other = RecordView { rule: None, ..view };
    assert_eq!(Duplicates::of(&config, &other), Duplicates::Suppressed);
}

#[test]
fn only_a_yes_forgets() {
    let views: Vec<RecordView> = shelf().0.iter().take(2).map(RecordView::from).collect();
    for (answer, means) in
        [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yesterday\n", false)]
    {
        let mut asked = Vec::new();
        assert_eq!(mend::agreed(&views, answer.as_bytes(), &mut asked).unwrap(), means, "{answer:?}");
        let asked = String::from_utf8(asked).unwrap();
        assert!(
            asked.starts_with("0101010101010101 (accepted, header order-1, to ann@example.com)\n"),
            "{asked}"
        );
        assert!(asked.contains("Forget these 2 records? "), "{asked}");
    }
}

#[test]
fn show_tells_when_and_from_where_duplicates_came() {
    let mut record = record(1, "k", "ann@b.test", State::Settled(Outcome::Accepted(Reply::new(250, "ok"))));
    record.suppressed = vec![Suppression { at: NOW, client: "192.0.2.7:4711".into() }];
    let text = to_text(&RecordView::from(&record), Held::ByTheProxy, Duplicates::Suppressed);
    assert!(text.contains("duplicates   31, the last 1 are below\n"), "{text}");
    assert!(text.contains("suppressed   2026-11-21T08:15:00.123Z  from 192.0.2.7:4711\n"), "{text}");
}

fn exported(reach: &Reach, after: Option<ClaimId>) -> String {
    let mut out = Vec::new();
    transfer::write_records(reach, after, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Records that are not easy to write down.
fn settled_shelf() -> Shelf {
    let mut shelf = shelf();
    shelf.0.retain(|record| matches!(record.state, State::Settled(_)));
    let reply = Reply::from_wire(450, b"4.2.0 caf\xe9\n4.2.0  two \n".to_vec());
    let mut odd = record(9, "\u{2028}\u{e4}", "x@y.test", State::Settled(Outcome::Deferred(reply)));
    odd.rule = "night".into();
    odd.names.date = WrittenField::of_text("Date", "Sat, 21 Nov 2026 08:15:00 +0000");
    odd.attempt_count = 40;
    odd.settled_at = None;
    odd.marks = Marks { delivered: vec![1, u64::MAX], owed: vec![2], doubtful: vec![3] };
    odd.suppressed = vec![Suppression { at: NOW, client: "[::1]:25".into() }];
    shelf.0.push(odd);
    shelf
}

#[test]
fn what_is_exported_and_imported_is_exported_the_same() {
    let text = exported(&over(settled_shelf()), None);
    assert_eq!(text.lines().count(), 4);
    let other = over(MemoryStore::new());
    let all = Imported { added: 4, ..Imported::default() };
    assert_eq!(transfer::read_records(&other, text.as_bytes()).unwrap(), all);
    assert_eq!(exported(&other, None), text);
    // Once more changes nothing.
    let again = Imported { kept: 4, ..Imported::default() };
    assert_eq!(transfer::read_records(&other, text.as_bytes()).unwrap(), again);
    assert_eq!(exported(&other, None), text);
    // And it goes on behind any line.
    let rest = exported(&other, Some(ClaimId([2; 32])));
    assert!(text.ends_with(&rest) && rest.lines().count() == 2, "{rest}");
}

#[test]
fn what_was_in_flight_is_in_doubt_or_nothing_elsewhere() {
    let text = exported(&over(shelf()), None);
    assert_eq!(text.lines().count(), 4, "a pending claim has sent nothing: {text}");
    let pending = RecordView::from(&shelf().0[2]).to_json();
    let other = over(MemoryStore::new());
    let all = Imported { added: 4, kept: 0, expired: 1 };
    assert_eq!(transfer::read_records(&other, format!("{pending}\n\n{text}").as_bytes()).unwrap(), all);
    assert_eq!(other.find(&"05".repeat(32)).unwrap()[0].state, StateName::InDoubt);
}

#[test]
fn a_line_that_is_no_record_is_named_and_those_before_it_are_taken() {
    let text = exported(&over(settled_shelf()), None);
    let mut lines: Vec<&str> = text.lines().collect();
    for bad in
        ["{", "[]", "{\"id\":\"x\"}", &lines[3].replace("deferred", "lost"), &lines[3].replace("450 ", "99 ")]
    {
        lines[3] = bad;
        let other = over(MemoryStore::new());
        let fault = transfer::read_records(&other, lines.join("\n").as_bytes()).unwrap_err().to_string();
        assert!(fault.starts_with("line 4 is no record: "), "{bad}: {fault}");
        assert!(fault.contains("The 3 before it were taken (3 added, "), "{fault}");
        assert_eq!(exported(&other, None).lines().count(), 3);
    }
}
