//! The real engine on what a crash left.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use mailonce::config::InDoubt;
use mailonce::smtp::reply::Reply;
use mailonce::store::sled::SledStore;
use mailonce::store::{
    ClaimId, ClaimRequest, Claimed, Durability, Outcome, Query, Selection, Settlement, Store, Token,
};

use crate::content::Image;
use crate::history::History;
use crate::workload::{at, everything, id, open, slot};

/// An id of no workload.
const STRANGER: u64 = u64::MAX;

/// When the next process starts: after all that was recorded.
const LATER: u64 = 1 << 40;

/// How an opening went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    AsItWas,
    /// With a copy of the damaged store set aside.
    Mended,
}

/// Opens the store from `image` in an empty `directory`, and holds it to what
/// was promised: all of it is there, nothing else is, it can be written, and
/// the next opening finds the same.
pub(crate) fn judge(image: &Image, history: &History, directory: &Path) -> Result<Opened, String> {
    let store = directory.join("store");
    image.save(&store).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = caught(|| runtime.block_on(first(&store, history)))?;
    let again = caught(|| runtime.block_on(second(&store)))?;
    if found != again {
        return Err(format!("the next opening finds something else: {found:?}, then {again:?}"));
    }
    let mended = directory.join("store.damaged-1").exists();
    Ok(if mended { Opened::Mended } else { Opened::AsItWas })
}

fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", text.unwrap_or_else(|| "without words".into())))
    })
}

async fn first(path: &Path, history: &History) -> Result<BTreeMap<ClaimId, String>, String> {
    let (store, _) = open(path, at(LATER)).map_err(|fault| fault.to_string())?;
    let found = everything(&store).await?;
    history.check(&found)?;
    by_key(&store, &found).await?;
    send(&store).await?;
    let found = everything(&store).await?;
    store.close().await.map_err(|fault| fault.to_string())?;
    Ok(found)
}

async fn second(path: &Path) -> Result<BTreeMap<ClaimId, String>, String> {
    let (store, doubtful) = open(path, at(LATER + 1000)).map_err(|fault| fault.to_string())?;
    if !doubtful.is_empty() {
        return Err(format!("in doubt at the second opening only: {doubtful:?}"));
    }
    let found = everything(&store).await?;
    store.close().await.map_err(|fault| fault.to_string())?;
    Ok(found)
}

/// Every record is found by its id and by its key.
async fn by_key(store: &SledStore, found: &BTreeMap<ClaimId, String>) -> Result<(), String> {
    for id in found.keys() {
        let record = store.get(*id, at(0)).await.map_err(|fault| fault.to_string())?;
        let record = record.ok_or_else(|| format!("{id} is listed, but not there"))?;
        let query = Query { of: Selection::Key(record.key.clone()), ..Query::default() };
        let (keyed, _) = store.list(query, at(0)).await.map_err(|fault| fault.to_string())?;
        if !keyed.iter().any(|record| record.id == *id) {
            return Err(format!("{id} is not found by its key"));
        }
    }
    Ok(())
}

/// Sends something new.
async fn send(store: &SledStore) -> Result<(), String> {
    let token = Token { owner: 8, attempt: 1 };
    let slot = slot(STRANGER, 0, Duration::from_secs(3600), InDoubt::Suppress);
    let (now, lease_until) = (at(LATER), at(LATER + 1000));
    let request = ClaimRequest { token, at: now, lease_until, slots: vec![slot], tenant_cap: None };
    let text = |fault: mailonce::store::StoreFault| fault.to_string();
    let claimed = store.claim(request).await.map_err(text)?;
    if !matches!(claimed[..], [Claimed::New { .. }]) {
        return Err(format!("a new id is not new: {claimed:?}"));
    }
    store.commit(token, vec![id(STRANGER).into()], now).await.map_err(text)?;
    let outcome = Outcome::of_reply(Reply::new(250, "2.0.0 ok"));
    let settlement = Settlement::new(id(STRANGER), outcome, "");
    store.settle(token, now, vec![settlement], Durability::Now).await.map_err(text)
}
