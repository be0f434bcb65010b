//! What the service itself remembers: accounts, sessions and the image in its drive.

use argon2::{Algorithm, Argon2, Params, Version};
use std::collections::BTreeMap;
use std::io;

/// Sessions at a time; the oldest makes room, as on real BMCs.
const MAX_SESSIONS: usize = 16;
/// Accounts at a time.
pub(super) const MAX_ACCOUNTS: usize = 15;
/// Password lengths.
pub(super) const MIN_PASSWORD: usize = 12;
pub(super) const MAX_PASSWORD: usize = 24;
/// The roles, each with its privileges (DSP0266, 13.3.6).
pub(super) const ROLES: [(&str, &[&str]); 3] = [
    (
        "Administrator",
        &["Login", "ConfigureManager", "ConfigureUsers", "ConfigureSelf", "ConfigureComponents"],
    ),
    ("Operator", &["Login", "ConfigureComponents", "ConfigureSelf"]),
    ("ReadOnly", &["Login", "ConfigureSelf"]),
];

/// A password as it is kept.
#[derive(Clone)]
pub(super) struct Hashed {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl Hashed {
    pub(super) fn new(password: &str) -> io::Result<Self> {
        let salt = rand::random();
        Ok(Self { salt, hash: digest(password, &salt)? })
    }

    /// Whether that is the password. Takes milliseconds: not under a lock.
    pub(super) fn matches(&self, password: &str) -> bool {
        digest(password, &self.salt).is_ok_and(|hash| hash == self.hash)
    }
}

/// Argon2id, small: a BMC hashes on each basic-authenticated request.
fn digest(password: &str, salt: &[u8; 16]) -> io::Result<[u8; 32]> {
    let other = |e: argon2::Error| io::Error::other(e.to_string());
    let params = Params::new(1024, 1, 1, Some(32)).map_err(other)?;
    let mut hash = [0; 32];
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(password.as_bytes(), salt, &mut hash).map_err(other)?;
    Ok(hash)
}

pub(super) struct Account {
    pub(super) user: String,
    pub(super) password: Hashed,
    pub(super) role: String,
    pub(super) enabled: bool,
}

pub(super) struct Session {
    pub(super) token: String,
    pub(super) account: u32,
}

/// The image in the drive.
pub(super) struct Media {
    pub(super) url: String,
    pub(super) file: std::path::PathBuf,
}

pub(super) struct State {
    pub(super) accounts: BTreeMap<u32, Account>,
    pub(super) sessions: BTreeMap<u32, Session>,
    pub(super) media: Option<Media>,
    /// "Once" to the disk: the machine's own order, until the next reset.
    pub(super) disk_once: bool,
    next: u32,
}

impl State {
    pub(super) fn new(user: &str, password: &str) -> io::Result<Self> {
        let password = Hashed::new(password)?;
        let account =
            Account { user: user.to_owned(), password, role: "Administrator".into(), enabled: true };
        Ok(Self {
            accounts: BTreeMap::from([(1, account)]),
            sessions: BTreeMap::new(),
            media: None,
            disk_once: false,
            next: 1,
        })
    }

    /// A number that was not used before.
    pub(super) fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub(super) fn account_of(&self, user: &str) -> Option<(u32, &Account)> {
        self.accounts.iter().find(|(_, a)| a.user == user).map(|(id, a)| (*id, a))
    }

    pub(super) fn open_session(&mut self, account: u32) -> (u32, String) {
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.pop_first();
        }
        let token = hex::encode(rand::random::<[u8; 24]>());
        let id = self.fresh();
        self.sessions.insert(id, Session { token: token.clone(), account });
        (id, token)
    }

    /// Ends what an account that is gone, disabled or changed holds open.
    pub(super) fn end_sessions_of(&mut self, account: u32) {
        self.sessions.retain(|_, s| s.account != account);
    }
}
