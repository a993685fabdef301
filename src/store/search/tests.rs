use super::*;
use crate::store::contract::{accepted, at, claim, deferred, id, in_doubt, send, slot};
use crate::store::memory::MemoryStore;
use crate::store::{Slot, State};

/// Enough for several pages of a store, in which one of three is deferred.
const MANY: u64 = 2500;

fn numbered(number: u64) -> ClaimId {
    let mut id = ClaimId::FIRST;
    id.0[..8].copy_from_slice(&(number << 32).to_be_bytes());
    id
}

async fn filled() -> MemoryStore {
    let store = MemoryStore::new();
    send(&store, 1, at(0), slot(0xff), accepted()).await;
    let pattern = store.get(id(0xff), at(0)).await.unwrap().unwrap();
    let record = |number: u64| Record {
        id: numbered(number),
        key: format!("order-{}", number % 100),
        last_seen: at(number % 997),
        state: State::Settled(if number.is_multiple_of(3) { deferred() } else { accepted() }),
        ..pattern.clone()
    };
    store.import((0..MANY).map(record).collect(), at(0)).await.unwrap();
    store.forget(id(0xff), at(0)).await.unwrap();
    store
}

async fn all(store: &dyn Store, filter: &Filter) -> (Vec<Record>, usize) {
    let mut search = Search::new(store, filter, at(0));
    let mut found = Vec::new();
    while let Some(page) = search.next().await.unwrap() {
        assert!(!page.is_empty());
        found.extend(page);
        if filter.limit > 0 {
            break;
        }
    }
    (found, search.found())
}

#[tokio::test]
async fn without_a_limit_all_come_in_the_order_of_their_ids() {
    let store = filled().await;
    let (found, count) = all(&store, &Filter::default()).await;
    assert_eq!(found.iter().map(|r| r.id).collect::<Vec<_>>(), (0..MANY).map(numbered).collect::<Vec<_>>());
    assert_eq!(count, found.len());
    let deferred = Filter { state: Some(StateName::Deferred), ..Filter::default() };
    assert_eq!(all(&store, &deferred).await.1, 834);
}

#[tokio::test]
async fn with_a_limit_the_newest_come_first() {
    let store = filled().await;
    let (found, count) = all(&store, &Filter { limit: 5, ..Filter::default() }).await;
    let seen: Vec<_> = found.iter().map(|record| record.last_seen).collect();
    assert_eq!(seen, [996, 996, 995, 995, 994].map(at));
    assert_eq!(count as u64, MANY);
    let mut search_filter = Filter { limit: 5, tenant: Some("nobody".into()), ..Filter::default() };
    assert_eq!(all(&store, &search_filter).await, (Vec::new(), 0));
    // The end is the end, however often one asks.
    search_filter.tenant = None;
    let mut search = Search::new(&store, &search_filter, at(0));
    assert!(search.next().await.unwrap().is_some());
    assert!(search.next().await.unwrap().is_none());
    assert_eq!(search.found() as u64, MANY);
}

#[tokio::test]
async fn a_plain_key_is_looked_up_and_a_pattern_searched() {
    let store = filled().await;
    let with = |key: &str| Filter::new(None, None, None, Some(key), None, 0);
    assert_eq!(with("order-7").selection(), Selection::Key("order-7".into()));
    assert_eq!(all(&store, &with("order-7")).await.1, 25);
    assert_eq!(with("order-7?").selection(), Selection::All);
    assert_eq!(all(&store, &with("order-7?")).await.1, 250);
    assert_eq!(all(&store, &with("ORDER-7")).await.1, 0);
}

#[test]
fn a_filter_wants_what_passes_all_of_it() {
    let store = MemoryStore::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let record = runtime.block_on(async {
        let slot = Slot { recipient: "Bob@bücher.example".into(), ..slot(1) };
        send(&store, 1, at(7), slot, in_doubt()).await;
        store.get(id(1), at(7)).await.unwrap().unwrap()
    });
    let state = Some(StateName::InDoubt);
    let wanted = |tenant, recipient, key, since| {
        Filter::new(state, Some(tenant), Some(recipient), Some(key), Some(since), 0).wants(&record)
    };
    assert!(wanted("shop", "bob@xn--bcher-kva.example", "order-?", at(7)));
    assert!(wanted("shop", "*@BÜCHER.example", "*", at(6)));
    assert!(!wanted("Shop", "*", "*", at(7)));
    assert!(!wanted("shop", "ann@*", "*", at(7)));
    assert!(!wanted("shop", "*", "order", at(7)));
    assert!(!wanted("shop", "*", "*", at(8)));
    assert!(!Filter { state: Some(StateName::Accepted), ..Filter::default() }.wants(&record));
}

#[tokio::test]
async fn a_record_is_found_by_id_key_or_prefix() {
    let store = filled().await;
    let found = async |what: &str| find(&store, what, at(0)).await.unwrap();
    let full = numbered(9).to_string();
    assert_eq!(found(&full).await.len(), 1);
    assert_eq!(found(&full.to_uppercase()).await.len(), 1);
    assert_eq!(found("order-7").await.len(), 25);
    assert_eq!(found(&full[..8]).await[0].id, numbered(9));
    assert_eq!(found(&full[..9]).await.len(), 1);
    assert_eq!(found("0000000").await, [], "seven digits are too few");
    assert_eq!(found("0000000g").await, []);
    assert_eq!(found("00000000").await.len(), 1);
    assert_eq!(found(&"+f".repeat(32)).await, []);
    assert_eq!(found("").await, []);
    // A key that looks like the start of an id is a key.
    let digits = full[..8].to_owned();
    claim(&store, 2, at(0), Slot { key: digits.clone(), ..slot(0xee) }).await;
    assert_eq!(found(&digits).await[0].id, id(0xee));
}

#[test]
fn a_state_is_written_as_people_write_it() {
    for state in StateName::ALL {
        assert_eq!(state.to_string().parse(), Ok(state));
    }
    assert_eq!("in-doubt".parse(), Ok(StateName::InDoubt));
    assert!("In_Doubt".parse::<StateName>().unwrap_err().contains("accepted, deferred"));
}
