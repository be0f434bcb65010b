//! The vault: what opens, and what must not.
use super::*;
use dayzero_store::Options;
use std::path::Path;

fn store(dir: &Path) -> Store {
    Store::open(dir, Options::default()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_copied_data_directory_alone_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key) = (dir.path().join("data"), KeySource::File(dir.path().join("keys/master")));
    let vault = Vault::open(&store(&data), &key).unwrap();
    vault.put("bmc/host1", &Secret::new("factory-Passw0rd".into())).await.unwrap();
    drop(vault);
    let stolen = dir.path().join("stolen");
    copy(&data, &stolen);
    let elsewhere = KeySource::File(dir.path().join("elsewhere/master"));
    let lost = Vault::open(&store(&stolen), &elsewhere).unwrap_err();
    assert!(matches!(lost, TrustError::BadKeyFile { .. }), "{lost}");
    assert!(!dir.path().join("elsewhere/master").exists(), "no new key is made for an old vault");
    MasterKey::from_file(&dir.path().join("elsewhere/master"), &stolen, true).unwrap();
    let wrong = Vault::open(&store(&stolen), &elsewhere).unwrap_err();
    assert!(matches!(wrong, TrustError::WrongKey), "{wrong}");
    let phrase = KeySource::Passphrase(Secret::new("guess".into()));
    assert!(matches!(Vault::open(&store(&stolen), &phrase), Err(TrustError::WrongKey)));
    for file in walk(&stolen) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(16).any(|w| w == b"factory-Passw0rd"), "{} holds the secret", file.display());
    }
    let vault = Vault::open(&store(&stolen), &key).unwrap();
    assert_eq!(vault.get("bmc/host1").unwrap().unwrap().expose(), "factory-Passw0rd");
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() { files.extend(walk(&entry.path())) } else { files.push(entry.path()) }
    }
    files
}

#[tokio::test]
async fn a_sealed_value_opens_under_its_own_name_and_unchanged_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir.path().join("data"));
    let vault = Vault::open(&store, &KeySource::Passphrase(Secret::new("open sesame".into()))).unwrap();
    vault.put("a", &Secret::new("alpha".into())).await.unwrap();
    vault.put("b", &Secret::new("beta".into())).await.unwrap();
    let sealed = store.get(&SEALED, &"a".to_owned()).unwrap().unwrap();
    let mut tx = store.tx();
    tx.put(&SEALED, &"b".to_owned(), &sealed).unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(vault.get("b"), Err(TrustError::Sealed { .. })), "moved from another name");
    let mut text = BASE64.decode(&sealed.text).unwrap();
    text[0] ^= 1;
    let changed = Sealed { text: BASE64.encode(text), ..sealed };
    assert!(matches!(vault.unseal("a", &changed), Err(TrustError::Sealed { .. })), "changed");
    assert_eq!(vault.names("").unwrap(), ["a", "b"]);
    vault.delete("b").await.unwrap();
    assert!(vault.get("b").unwrap().is_none());
    drop(vault);
    assert!(Vault::open(&store, &KeySource::Passphrase(Secret::new("open sesame".into()))).is_ok());
}
