use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::contract::{
    Engine, accepted, at, by_key, claim, contract_suite, counted, id, is_new, send, settled, slot, token,
};
use super::super::ledger::Backend;
use super::super::record::MAX_ATTEMPTS;
use super::super::{
    Attempt, AttemptKind, Fingerprint, MAX_MARKS, Marks, Names, Outcome, Slot, State, Store, Suppression,
    Tally, Token,
};
use super::*;
use crate::smtp::reply::Reply;
use crate::store::ClaimId;

struct Sled(TempDir);

impl Sled {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// What the operating system has of the files: just what a killed process
    /// leaves.
    fn copied(&self) -> PathBuf {
        let copy = self.0.path().join("killed");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
        }
        copy
    }
}

#[async_trait]
impl Engine for Sled {
    async fn open(&self, at: Timestamp) -> (Arc<dyn Store>, Vec<Record>) {
        let (store, doubtful) = SledStore::open(&self.path(), 0, at).unwrap();
        (Arc::new(store), doubtful)
    }

    fn durable(&self) -> bool {
        true
    }

    async fn killed(&self, at: Timestamp) -> (Arc<dyn Store>, Vec<Record>) {
        let copy = self.copied();
        let (store, doubtful) = SledStore::open(&copy, 0, at).unwrap();
        (Arc::new(store), doubtful)
    }
}

contract_suite!(contract, Sled::new());

fn text(fault: StoreFault) -> String {
    fault.to_string()
}

#[tokio::test]
async fn a_second_opening_is_refused() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    let fault = SledStore::open(&dir.path(), 0, at(0)).unwrap_err();
    assert!(matches!(&fault, StoreFault::Locked(text) if text.contains("another process has the store")));
    assert!(text(fault).contains(&dir.path().display().to_string()));
    assert!(matches!(SledStore::open_without_recovery(&dir.path()), Err(StoreFault::Locked(_))));
    store.close().await.unwrap();
    SledStore::open(&dir.path(), 0, at(0)).unwrap().0.close().await.unwrap();
}

#[tokio::test]
async fn looking_leaves_what_was_committing_to_the_next_start() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    assert!(is_new(&claim(&store, 1, at(0), slot(1)).await));
    store.commit(token(1), vec![id(1).into()], at(0)).await.unwrap();
    store.close().await.unwrap();

    let store = SledStore::open_without_recovery(&dir.path()).unwrap();
    let record = store.get(id(1), at(1)).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Committing { .. }));
    store.close().await.unwrap();

    let (store, doubtful) = SledStore::open(&dir.path(), 0, at(2)).unwrap();
    assert_eq!(doubtful.len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_killed_opening_does_not_prevent_the_next() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    send(&store, 1, at(0), slot(1), accepted()).await;
    store.close().await.unwrap();
    let leftover = dir.path().join("snap.0000000000001000.generating");
    fs::write(&leftover, b"half a snapshot").unwrap();

    let (store, _) = SledStore::open(&dir.path(), 0, at(1)).unwrap();
    assert!(!leftover.exists());
    settled(claim(&store, 2, at(1), slot(1)).await);
    store.close().await.unwrap();
}

/// sled writes its settings in two pieces and syncs neither.
#[tokio::test]
async fn half_written_settings_do_not_prevent_the_next_opening() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    send(&store, 1, at(0), slot(1), accepted()).await;
    store.close().await.unwrap();
    let settings = dir.path().join("conf");
    let whole = fs::read(&settings).unwrap();
    let zeros = vec![0; whole.len()];
    for left in [&whole[..whole.len() - 4], &whole[..20], &zeros, &[]] {
        fs::write(&settings, left).unwrap();
        let (store, _) = SledStore::open(&dir.path(), 0, at(1)).unwrap();
        settled(claim(&store, 2, at(1), slot(1)).await);
        store.close().await.unwrap();
        assert_eq!(fs::read(&settings).unwrap(), whole);
    }
    assert!(!dir.0.path().join("data.damaged-1").exists());
}

#[tokio::test]
async fn a_damaged_snapshot_is_set_aside_and_the_log_read() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    send(&store, 1, at(0), slot(1), accepted()).await;
    store.close().await.unwrap();
    fs::write(dir.path().join("snap.00000000FFFFFFFF"), b"no snapshot at all").unwrap();

    let (store, _) = SledStore::open(&dir.path(), 0, at(1)).unwrap();
    settled(claim(&store, 2, at(1), slot(1)).await);
    store.close().await.unwrap();
    let copy = dir.0.path().join("data.damaged-1");
    assert!(copy.join("db").exists() && copy.join("snap.00000000FFFFFFFF").exists());
}

#[test]
fn a_path_that_is_no_directory_is_named_with_a_remedy() {
    let dir = Sled::new();
    fs::write(dir.path(), b"a file").unwrap();
    let fault = text(SledStore::open(&dir.path(), 0, at(0)).unwrap_err());
    assert!(
        fault.contains(&dir.path().display().to_string()) && fault.contains("not a directory"),
        "{fault}"
    );
    let below = text(SledStore::open(&dir.path().join("below"), 0, at(0)).unwrap_err());
    assert!(below.contains("not a directory"), "{below}");
}

#[test]
fn faults_of_the_disk_are_named_with_a_remedy() {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    for (kind, words) in
        [(ReadOnlyFilesystem, "read-only"), (StorageFull, "full"), (PermissionDenied, "may not write")]
    {
        let fault = text(open::explain(&PathBuf::from("/srv/claims"), &kind.into()));
        assert!(fault.contains("/srv/claims") && fault.contains(words), "{fault}");
    }
}

fn record(state: State, attempts: Vec<Attempt>, numbers: [u64; 4]) -> Record {
    let [a, b, c, d] = numbers;
    Record {
        id: ClaimId([5; 32]),
        tenant: "shop".into(),
        strategy: "header".into(),
        key: format!("order-{a}"),
        recipient: "ann@example.org".into(),
        sender: String::new(),
        rule: "codes".into(),
        fingerprint: Fingerprint([6; 32]),
        state,
        upstream: "mx:25".into(),
        names: Names::of_texts((a % 2 == 0).then_some("<a@b>"), None),
        series: Token { owner: a, attempt: b },
        size: b,
        attempts,
        attempt_count: c,
        first_seen: Timestamp::from_millis(a),
        last_seen: Timestamp::from_millis(b),
        settled_at: Some(Timestamp::from_millis(c)),
        duplicates: d,
        window: Duration::from_millis(d),
        unheard_window: Duration::from_millis(a),
        heard: a % 3 == 0,
        expires: Timestamp::from_millis(d),
        marks: Marks { delivered: vec![a, d], owed: vec![b], doubtful: vec![c, 0] },
        suppressed: vec![Suppression { at: Timestamp::from_millis(b), client: "[::1]:25".into() }],
    }
}

proptest! {
    #[test]
    fn every_record_survives_the_codec(
        numbers: [u64; 4],
        code in 200_u16..600,
        reply: Vec<u8>,
        replies in prop::collection::vec(any::<String>(), 0..8),
        shape in 0..3,
    ) {
        let token = Token { owner: numbers[0], attempt: numbers[1] };
        let state = match shape {
            0 => State::Committing { holder: token },
            1 => State::Pending { holder: token, lease_until: Timestamp::from_millis(numbers[2]) },
            _ => State::Settled(Outcome::of_reply(Reply::from_wire(code, reply))),
        };
        let attempts = replies.into_iter().map(|reply| attempt(Timestamp::default(), reply)).collect();
        let record = record(state, attempts, numbers);
        let bytes = codec::encode(&record).unwrap();
        prop_assert_eq!(codec::decode(&bytes).unwrap(), record);
    }

    #[test]
    fn no_bytes_make_the_codec_panic(bytes: Vec<u8>) {
        let _ = codec::decode(&bytes);
        let _ = codec::decode(&[&[1], bytes.as_slice()].concat());
        let _ = codec::decode(&[&[2], bytes.as_slice()].concat());
        let _ = codec::decode(&[&[3], bytes.as_slice()].concat());
        let _ = codec::decode_tally(&bytes);
    }

    #[test]
    fn a_damaged_record_is_another_one_or_refused(at: prop::sample::Index, octet: u8, cut: prop::sample::Index) {
        let mut bytes = codec::encode(&known()).unwrap();
        let length = bytes.len();
        bytes[at.index(length)] = octet;
        for bytes in [&bytes[..], &bytes[..cut.index(length)]] {
            if let Ok(record) = codec::decode(bytes) {
                prop_assert_eq!(codec::decode(&codec::encode(&record).unwrap()), Ok(record));
            }
        }
    }
}

fn attempt(at: Timestamp, reply: String) -> Attempt {
    Attempt { at, kind: AttemptKind::Deferred, reply }
}

pub(super) fn known() -> Record {
    let attempt = attempt(Timestamp::from_millis(300), "451 later".into());
    let state = State::Settled(Outcome::Deferred(Reply::new(451, "later")));
    record(state, vec![attempt], [1, 2, 3, 4])
}

/// What versions 1 and 2 wrote of that record, before its marks. The marks of
/// those who have it are the last of it.
const BODY: &str = concat!(
    "05050505050505050505050505050505050505050505050505050505050505050473686f700668",
    "6561646572076f726465722d310f616e6e406578616d706c652e6f72670005636f64657306060606",
    "060606060606060606060606060606060606060606060606060606060201c303056c61746572056d",
    "783a323500000201ac0209343531206c61746572030102010304008092f40104020104",
);
const MARKS: &str = "0102020300";
const SUPPRESSED: &str = "0102085b3a3a315d3a3235";

fn octets(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// That record as it is read out of what an earlier version wrote.
fn known_before() -> Record {
    let series = Token { owner: 0, attempt: 0 };
    Record { series, unheard_window: Duration::ZERO, heard: true, ..known() }
}

#[test]
fn a_record_with_all_its_marks_is_small() {
    let attempt = attempt(Timestamp::from_millis(u64::MAX), "x".repeat(256));
    let mut full = Record { attempts: vec![attempt; MAX_ATTEMPTS], ..known() };
    full.marks = Marks { owed: vec![u64::MAX; MAX_MARKS], ..Marks::default() };
    assert!(codec::encode(&full).unwrap().len() < 8 * 1024);
}

/// A change to the shape of a record changes these bytes. It must raise the
/// version in the codec, and teach the codec to read the old form.
#[test]
fn the_form_on_disk_is_what_it_was() {
    let bytes = codec::encode(&known()).unwrap();
    assert_eq!(
        super::super::record::hex(&bytes),
        concat!(
            "0305050505050505050505050505050505050505050505050505050505050505050473686f700668",
            "6561646572076f726465722d310f616e6e406578616d706c652e6f72670005636f64657306060606",
            "060606060606060606060606060606060606060606060606060606060201c303056c61746572056d",
            "783a3235000001020201ac020109343531206c61746572030102010304008092f40100c0843d0004",
            "02010401020203000102085b3a3a315d3a3235",
        )
    );
}

#[test]
fn the_forms_before_are_still_read() {
    let second = octets(&format!("02{BODY}{MARKS}{SUPPRESSED}"));
    assert_eq!(codec::decode(&second).unwrap(), known_before());
    let marks = Marks { delivered: vec![1, 4], ..Marks::default() };
    let first = Record { marks, suppressed: Vec::new(), ..known_before() };
    assert_eq!(codec::decode(&octets(&format!("01{BODY}"))).unwrap(), first);
}

/// Earlier versions let a deferral take the place of a doubt, and kept the doubt
/// in the words of the attempt before.
#[test]
fn a_doubt_beneath_an_older_deferral_is_a_doubt() {
    let said = |words: &str| {
        let length = format!("{:02x}", words.len());
        let attempts = format!("01ac02{length}{}", super::super::record::hex(words.as_bytes()));
        let body = BODY.replace("01ac0209343531206c61746572", &attempts);
        codec::decode(&octets(&format!("02{body}{MARKS}{SUPPRESSED}"))).unwrap()
    };
    let doubt = said("451 4.4.2 [IN-DOUBT] no answer");
    assert_eq!(doubt.attempts[0].kind, AttemptKind::NoAnswer);
    assert!(matches!(doubt.state, State::Settled(Outcome::InDoubt(_))), "{doubt:?}");
    for words in ["451 4.3.0 later", "resolved as not sent by an operator"] {
        assert!(matches!(said(words).state, State::Settled(Outcome::Deferred(_))), "{words}");
    }
}

#[test]
fn the_form_of_a_count_is_what_it_was() {
    let tally = Tally {
        relayed: 1,
        suppressed: 2,
        conflicts: 3,
        in_doubt: 4,
        unkeyed: 5,
        deferred: 6,
        refused: 300,
        observed: 7,
    };
    let bytes = codec::encode_tally(&tally).unwrap();
    assert_eq!(super::super::record::hex(&bytes), "01010203040506ac0207");
    assert_eq!(codec::decode_tally(&bytes), Ok(tally));
    assert!(codec::decode_tally(&[2, 0]).unwrap_err().contains("use the version that wrote it"));
}

#[test]
fn a_record_of_a_newer_version_is_not_guessed_at() {
    let fault = codec::decode(&[4, 0, 0]).unwrap_err();
    assert!(fault.contains("use the version that wrote it"));
}

/// A store that an earlier version made has no index of keys: it is built in
/// the background, and until then a key is looked for in every record.
#[tokio::test]
async fn the_keys_of_an_older_store_are_indexed() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    for number in 0..200 {
        send(&store, 1, at(0), slot(number), accepted()).await;
    }
    store.close().await.unwrap();
    let index = |which: fn(&mut SledBackend) -> bool| {
        let opened = open::open(&dir.path()).unwrap();
        which(&mut SledBackend::new(opened, &dir.path(), compaction::FLOOR, Arc::default()).unwrap())
    };
    assert!(index(SledBackend::forget_index));
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    assert_eq!(by_key(&store, "order-150", 30).await, [150]);
    counted(&store).await;
    assert_eq!(by_key(&store, "order-150", 30).await, [150]);
    assert_eq!(by_key(&store, "order-7", 30).await, [7]);
    store.close().await.unwrap();
    assert!(index(|backend| backend.is_indexed()), "it is remembered");
    assert!(index(|backend| backend.has_entries()));
}

/// A store that an earlier version made may hold its ids, compacted or not.
#[tokio::test]
async fn an_older_store_is_looked_through_for_former_ids() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    send(&store, 1, at(0), slot(9), accepted()).await;
    store.close().await.unwrap();
    let mut backend =
        SledBackend::new(open::open(&dir.path()).unwrap(), &dir.path(), compaction::FLOOR, Arc::default())
            .unwrap();
    assert!(!backend.has_former());
    assert!(backend.forget_own_ids());
    drop(backend);
    let (store, _) = SledStore::open(&dir.path(), 0, at(1)).unwrap();
    let today = Slot { former: vec![id(9)], fingerprint: slot(9).fingerprint, ..slot(1) };
    assert_eq!(settled(claim(&store, 2, at(1), today).await).0.id, id(1));
    store.close().await.unwrap();
}

/// What the process before was sending when it was killed is in doubt under its
/// own id, and still keeps its retry back.
#[tokio::test]
async fn a_doubt_of_an_earlier_version_is_found_after_its_crash() {
    let dir = Sled::new();
    let (store, _) = SledStore::open(&dir.path(), 0, at(0)).unwrap();
    store.import(Vec::new(), at(0)).await.unwrap();
    assert!(is_new(&claim(&store, 1, at(0), slot(9)).await));
    store.commit(token(1), vec![id(9).into()], at(0)).await.unwrap();
    let (killed, doubtful) = dir.killed(at(1)).await;
    assert_eq!(doubtful.len(), 1);
    let today = Slot { former: vec![id(9)], ..slot(1) };
    let (record, _) = settled(claim(&*killed, 2, at(1), today).await);
    assert!(matches!(record.state, State::Settled(Outcome::InDoubt(_))));
    killed.close().await.unwrap();
    store.close().await.unwrap();
}
