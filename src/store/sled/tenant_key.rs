//! The key by which the passwords of tenants are hashed, in a file of the
//! store's directory.
//!
//! The claims of such a tenant are found by this key alone: with another one
//! their e-mails would be sent again. So the database notes what its key is
//! known by, and with another or none the store does not open for relaying.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::super::StoreFault;
use super::super::record::{hex, unhex};
use super::open::sync_directory;
use super::trees::{Note, Trees};
use crate::secret::SecretKey;

/// The file's name.
const FILE: &str = "tenant.key";

/// The most octets of the file.
const MOST: u64 = 4096;

/// What an operator writes into the file whose key is lost.
const NEW: &str = "new";

/// What is in the file.
enum Content {
    Key(SecretKey),
    /// No file, and no key that was ever made.
    Nothing,
    /// The word [`NEW`].
    GiveUp,
}

/// The key of the store in `path`; made where there has never been one.
///
/// # Errors
/// [`StoreFault::Failed`] with a remedy, where it can't be read or written, is
/// missing, or is not the one that the claims were made with.
pub(super) fn read_or_make(path: &Path, trees: &Trees) -> Result<SecretKey, StoreFault> {
    let file = path.join(FILE);
    let fault = |what: &str| StoreFault::Failed(format!("{}: {what}", file.display()));
    let failed = |error: ::sled::Error| fault(&format!("the store can't note its key: {error}"));
    let known = trees.note(Note::TenantKey).map_err(failed)?;
    let key = match (read(&file).map_err(|what| fault(&what))?, &known) {
        (Content::Key(key), Some(known)) if **known != mark(&key) => {
            return Err(fault(&lost("is another one")));
        }
        (Content::Key(key), _) => key,
        (Content::Nothing, Some(_)) => return Err(fault(&lost("is missing"))),
        (Content::Nothing, None) | (Content::GiveUp, _) => make(path, &file)
            .map_err(|error| fault(&format!("can't be made: {error}; give mailonce's user the directory")))?,
    };
    if known.is_none_or(|known| *known != mark(&key)) {
        trees.set(Note::TenantKey, &mark(&key)).map_err(failed)?;
        trees.flush().map_err(failed)?;
        trees.sync().map_err(|error| fault(&format!("the store can't note its key: {error}")))?;
    }
    Ok(key)
}

fn lost(what: &str) -> String {
    format!(
        "the key that names the tenants of auth = \"passthrough\" {what}. Restore the file from a backup: with another \
         key, e-mails that these tenants sent before count as new and are sent again at a retry. To accept that, \
         write the word {NEW} into the file"
    )
}

/// What the database knows a key by. It says nothing of the key.
fn mark(key: &SecretKey) -> [u8; 32] {
    Sha256::new().chain_update(b"mailonce tenant key").chain_update(key.octets()).finalize().into()
}

fn read(file: &Path) -> Result<Content, String> {
    let unread = |error: io::Error| format!("can't be read: {error}; give mailonce's user the file");
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Nothing),
        opened => opened.map_err(unread)?,
    };
    let mut text = String::new();
    opened.take(MOST).read_to_string(&mut text).map_err(unread)?;
    match text.trim() {
        NEW => Ok(Content::GiveUp),
        text => match unhex(text) {
            Some(octets) => Ok(Content::Key(SecretKey::new(octets))),
            None => Err(lost("is damaged (it is 64 hex digits)")),
        },
    }
}

/// The file appears whole or not at all, for our user alone.
fn make(path: &Path, file: &Path) -> io::Result<SecretKey> {
    let key = SecretKey::random().map_err(io::Error::other)?;
    let mut temporary = tempfile::NamedTempFile::new_in(path)?;
    writeln!(temporary, "{}", hex(key.octets()))?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    sync_directory(path)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::super::super::Store;
    use super::super::super::contract::at;
    use super::super::Opened;
    use super::super::SledStore;
    use super::*;

    /// Opens the store for relaying and closes it; its key, or what is wrong.
    async fn open(path: &Path) -> Result<[u8; 32], String> {
        let Opened { store, tenant_key, .. } =
            SledStore::open_for_relaying(path, 0, at(0)).map_err(|fault| fault.to_string())?;
        store.close().await.unwrap();
        Ok(*tenant_key.octets())
    }

    #[tokio::test]
    async fn it_is_made_once_for_our_user_alone() {
        let dir = TempDir::new().unwrap();
        let (path, file) = (dir.path().join("a/b"), dir.path().join("a/b/tenant.key"));
        let made = open(&path).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n", hex(&made)));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(&path).await, Ok(made));
        let other = TempDir::new().unwrap();
        assert_ne!(open(other.path()).await, Ok(made));
    }

    #[tokio::test]
    async fn a_lost_damaged_or_other_key_keeps_the_store_from_relaying() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("tenant.key");
        let made = open(dir.path()).await.unwrap();
        fs::remove_file(&file).unwrap();
        let fault = open(dir.path()).await.unwrap_err();
        assert!(fault.contains("tenant.key: ") && fault.contains("is missing. Restore the file"), "{fault}");
        for (content, what) in [
            (hex(&[7; 32]), "is another one"),
            (String::new(), "is damaged"),
            (hex(&made)[1..].to_owned(), "is damaged"),
        ] {
            fs::write(&file, &content).unwrap();
            let fault = open(dir.path()).await.unwrap_err();
            assert!(fault.contains(what) && !fault.contains(&hex(&[7; 32])), "{fault}");
            assert_eq!(fs::read_to_string(&file).unwrap(), content, "it is left as it was");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let fault = open(dir.path()).await.unwrap_err();
        assert!(fault.contains("can't be read"), "{fault}");
        // Looking and mending need no key.
        SledStore::open_without_recovery(dir.path()).unwrap().close().await.unwrap();
        fs::remove_dir(&file).unwrap();
        fs::write(&file, hex(&made)).unwrap();
        assert_eq!(open(dir.path()).await, Ok(made), "restored");
    }

    #[tokio::test]
    async fn a_key_that_is_lost_for_good_can_be_given_up() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("tenant.key");
        let lost = open(dir.path()).await.unwrap();
        fs::write(&file, "new\n").unwrap();
        let made = open(dir.path()).await.unwrap();
        assert_ne!(made, lost);
        assert_eq!(open(dir.path()).await, Ok(made));
        fs::write(&file, hex(&lost)).unwrap();
        assert!(open(dir.path()).await.unwrap_err().contains("is another one"));
    }
}
