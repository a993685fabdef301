//! The store that the configuration names, opened.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::secret::SecretKey;
use crate::store::memory::MemoryStore;
use crate::store::record::Record;
use crate::store::sled::{self, SledStore};
use crate::store::{Store, StoreFault};

/// A store with what the last process left in it.
#[derive(Clone)]
pub struct Opened {
    /// The claims.
    pub store: Arc<dyn Store>,
    /// Claims whose attempt the last process did not live to finish: they are in
    /// doubt now.
    pub doubts: Vec<Record>,
    /// The key by which the passwords of tenants are hashed; as lasting as the
    /// claims.
    pub tenant_key: SecretKey,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("doubts", &self.doubts).finish_non_exhaustive()
    }
}

impl Opened {
    /// A store in which nothing was left, with a random key.
    ///
    /// # Errors
    /// When the machine gives no random number.
    pub fn fresh(store: Arc<dyn Store>) -> Result<Self, getrandom::Error> {
        Ok(Self { store, doubts: Vec::new(), tenant_key: SecretKey::random()? })
    }
}

/// Opens the store that the configuration names.
///
/// # Errors
/// [`StoreFault`] with a text that says what to do.
pub fn open_store(config: &config::Store) -> Result<Opened, StoreFault> {
    match config {
        config::Store::Memory => Opened::fresh(Arc::new(MemoryStore::new()))
            .map_err(|error| StoreFault::Failed(format!("the machine gives no random number: {error}"))),
        config::Store::Sled { path, reserve } => {
            let sled::Opened { store, doubts, tenant_key } =
                SledStore::open_for_relaying(path, *reserve, SystemClock.now())?;
            Ok(Opened { store: Arc::new(store), doubts, tenant_key })
        }
    }
}
