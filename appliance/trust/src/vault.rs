//! Secrets at rest: each sealed by XChaCha20-Poly1305 under the master key, bound to its name.
//!
//! The name is authenticated with the text, so that a sealed value moved under another name does not open. A sealed
//! value can be committed together with other writes ([`Vault::put_in`]): the state and its secret are one transaction.
//! It does not hide names, sizes or times.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use dayzero_model::Secret;
use dayzero_store::{Store, Table, Transaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use zeroize::Zeroizing;

use crate::{KeySource, MasterKey, TrustError};

static SEALED: Table<String, Sealed> = Table::new("vault");
static META: Table<String, Meta> = Table::new("vault.meta");
const META_KEY: &str = "master";

/// A sealed value. It may be stored anywhere; it opens under its name only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// 24 random bytes, base64.
    nonce: String,
    /// Ciphertext and tag, base64.
    text: String,
}

/// What is public about the master key: the passphrase's salt, and a sealed text that tells the right key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    salt: String,
    check: Sealed,
}

/// The vault of a store. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    store: Store,
    cipher: Arc<XChaCha20Poly1305>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl Vault {
    /// Opens the vault of `store`, making key and vault at the first start. Blocks (a passphrase takes some 100 ms).
    ///
    /// Errors: [`TrustError::WrongKey`]; those of [`MasterKey::from_file`].
    pub fn open(store: &Store, source: &KeySource) -> Result<Self, TrustError> {
        let meta = store.get(&META, &META_KEY.to_owned()).map_err(TrustError::store("reading the vault"))?;
        let salt = match &meta {
            Some(meta) => BASE64.decode(&meta.salt).map_err(|_| sealed_error(META_KEY))?,
            None => rand::random::<[u8; 16]>().to_vec(),
        };
        let key = match source {
            KeySource::File(path) => MasterKey::from_file(path, store.dir(), meta.is_none())?,
            KeySource::Passphrase(phrase) => MasterKey::from_passphrase(phrase, &salt)?,
        };
        let cipher = XChaCha20Poly1305::new(&(*key.bytes()).into());
        let vault = Self { store: store.clone(), cipher: Arc::new(cipher) };
        match meta {
            Some(meta) => {
                vault.unseal(META_KEY, &meta.check).map_err(|_| TrustError::WrongKey)?;
            }
            None => {
                let check = vault.seal(META_KEY, b"dayzero")?;
                let meta = Meta { salt: BASE64.encode(salt), check };
                let doing = TrustError::store;
                let mut tx = store.tx();
                tx.expect_absent(&META, &META_KEY.to_owned()).map_err(doing("making the vault"))?;
                tx.put(&META, &META_KEY.to_owned(), &meta).map_err(doing("making the vault"))?;
                tx.commit_blocking().map_err(doing("making the vault"))?;
            }
        }
        Ok(vault)
    }

    /// The store that it lives in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Seals bytes under a name.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Sealed, TrustError> {
        let nonce: [u8; 24] = rand::random();
        let payload = Payload { msg: plain, aad: &aad(name) };
        let text = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| sealed_error(name))?;
        Ok(Sealed { nonce: BASE64.encode(nonce), text: BASE64.encode(text) })
    }

    /// Opens what was sealed under this name.
    pub fn unseal(&self, name: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, TrustError> {
        let nonce = BASE64.decode(&sealed.nonce).ok().and_then(|n| <[u8; 24]>::try_from(n).ok());
        let (Some(nonce), Ok(text)) = (nonce, BASE64.decode(&sealed.text)) else {
            return Err(sealed_error(name));
        };
        let payload = Payload { msg: text.as_slice(), aad: &aad(name) };
        let plain = self.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| sealed_error(name))?;
        Ok(Zeroizing::new(plain))
    }

    /// Adds the write of a secret to a transaction.
    pub fn put_in(
        &self,
        tx: &mut Transaction,
        name: &str,
        secret: &Secret<String>,
    ) -> Result<(), TrustError> {
        self.put_bytes_in(tx, name, secret.expose().as_bytes())
    }

    /// Adds the write of a record that holds secrets to a transaction; it is sealed as a whole.
    pub fn put_record_in<T: Serialize>(
        &self,
        tx: &mut Transaction,
        name: &str,
        record: &T,
    ) -> Result<(), TrustError> {
        let content = |source| TrustError::Content { name: name.to_owned(), source };
        let plain = Zeroizing::new(serde_json::to_vec(record).map_err(content)?);
        self.put_bytes_in(tx, name, &plain)
    }

    fn put_bytes_in(&self, tx: &mut Transaction, name: &str, plain: &[u8]) -> Result<(), TrustError> {
        let sealed = self.seal(name, plain)?;
        tx.put(&SEALED, &name.to_owned(), &sealed).map_err(TrustError::store("storing a secret"))?;
        Ok(())
    }

    /// Adds the removal of a secret to a transaction.
    pub fn delete_in(&self, tx: &mut Transaction, name: &str) -> Result<(), TrustError> {
        tx.delete(&SEALED, &name.to_owned()).map_err(TrustError::store("removing a secret"))?;
        Ok(())
    }

    /// Stores a secret; durable when this resolves.
    pub async fn put(&self, name: &str, secret: &Secret<String>) -> Result<(), TrustError> {
        let mut tx = self.store.tx();
        self.put_in(&mut tx, name, secret)?;
        tx.commit().await.map_err(TrustError::store("storing a secret"))?;
        Ok(())
    }

    /// Stores a record that holds secrets; durable when this resolves.
    pub async fn put_record<T: Serialize>(&self, name: &str, record: &T) -> Result<(), TrustError> {
        let mut tx = self.store.tx();
        self.put_record_in(&mut tx, name, record)?;
        tx.commit().await.map_err(TrustError::store("storing a secret"))?;
        Ok(())
    }

    /// Removes a secret.
    pub async fn delete(&self, name: &str) -> Result<(), TrustError> {
        let mut tx = self.store.tx();
        self.delete_in(&mut tx, name)?;
        tx.commit().await.map_err(TrustError::store("removing a secret"))?;
        Ok(())
    }

    /// A secret.
    pub fn get(&self, name: &str) -> Result<Option<Secret<String>>, TrustError> {
        let Some(plain) = self.get_bytes(name)? else { return Ok(None) };
        let text = String::from_utf8(plain.to_vec()).map_err(|_| sealed_error(name))?;
        Ok(Some(Secret::new(text)))
    }

    /// A record that was stored by [`Vault::put_record`].
    pub fn get_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, TrustError> {
        let Some(plain) = self.get_bytes(name)? else { return Ok(None) };
        let record = serde_json::from_slice(&plain);
        record.map(Some).map_err(|source| TrustError::Content { name: name.to_owned(), source })
    }

    fn get_bytes(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, TrustError> {
        let sealed =
            self.store.get(&SEALED, &name.to_owned()).map_err(TrustError::store("reading a secret"))?;
        sealed.map(|sealed| self.unseal(name, &sealed)).transpose()
    }

    /// The names that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, TrustError> {
        let entries = self.store.scan(&SEALED, prefix).map_err(TrustError::store("listing secrets"))?;
        Ok(entries.into_iter().map(|e| e.key).collect())
    }
}

fn aad(name: &str) -> Vec<u8> {
    [b"dayzero/vault/1\0", name.as_bytes()].concat()
}

fn sealed_error(name: &str) -> TrustError {
    TrustError::Sealed { name: name.to_owned() }
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
