//! Users, roles and sessions. There is no default password: the first login is by a claim code.
//!
//! A claim code is stored as a hash. Until somebody has claimed the appliance, each start makes a new one, since nobody
//! can look the last one up. It works once: it makes the user `admin` with the password that the person chose. A session is 256 random bits; the store holds its hash only.
//! It does not read cookies or headers: that is the API's.

use std::sync::{Arc, Mutex, PoisonError};

use dayzero_model::{Millis, Name, Secret, Sha256, Timestamp};
use dayzero_store::{Store, Table};
use serde::{Deserialize, Serialize};

use crate::TrustError;
use crate::hash::PasswordHash;
use crate::throttle::Throttle;

static USERS: Table<Name, UserRecord> = Table::new("users");
static CLAIM: Table<String, ClaimRecord> = Table::new("users.claim");
static SESSIONS: Table<Sha256, Session> = Table::new("users.sessions");
const CLAIM_KEY: &str = "claim";
const SESSION_TTL: Millis = Millis(12 * 3600 * 1000);
const MAX_SESSIONS: usize = 1000;
const MIN_PASSWORD: usize = 12;
const MAX_PASSWORD: usize = 256;
/// Without 0 O 1 I L: to be read from a screen and typed.
const CODE_LETTERS: &[u8] = b"ABCDEFGHJKMNPQRSTUVWXYZ23456789";

/// What a user may do. Ordered: each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Run hosts and VMs.
    Operator,
    /// Everything: users, plan, disk consent.
    Admin,
}

impl Role {
    /// True if this role covers what `needed` may do.
    pub fn may(self, needed: Role) -> bool {
        self >= needed
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRecord {
    role: Role,
    password: PasswordHash,
    created: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimRecord {
    code: PasswordHash,
    created: Timestamp,
}

/// A user, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// Since when it exists.
    pub created: Timestamp,
}

/// A session's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Whose it is.
    pub user: Name,
    /// What it may do.
    pub role: Role,
    /// When it began.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// From where it began.
    pub address: String,
}

/// A new session: its id (for the cookie; known to nobody else, also not to the store) and its record.
#[derive(Debug)]
pub struct LoggedIn {
    /// 64 hex digits.
    pub id: Secret<String>,
    /// The record.
    pub session: Session,
}

/// Why a login failed: the person's fault, in words for the person.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Wrong user, password or code; deliberately not said which.
    #[error("user and password do not match")]
    Wrong,
    /// No claim code is open: it was used, or never made.
    #[error(
        "the claim code is wrong or was used before; make a new one with `dayzero claim` on the appliance"
    )]
    WrongCode,
    /// Too many failures.
    #[error("too many failed logins: wait {} s", seconds)]
    Throttled {
        /// Seconds to wait.
        seconds: u64,
    },
    /// The chosen password is not acceptable.
    #[error("choose a password of {MIN_PASSWORD} to {MAX_PASSWORD} characters")]
    BadPassword,
    /// The appliance's fault.
    #[error(transparent)]
    System(#[from] TrustError),
}

/// Users of a store. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    store: Store,
    throttle: Arc<Mutex<Throttle>>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Users(..)")
    }
}

impl Users {
    /// The users of this store. Call [`Users::first_claim`] after it at each start.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), throttle: Arc::default() }
    }

    /// At each start while there is no user: a claim code, to be shown to the person, in place of any before. `None`
    /// once there is a user.
    pub async fn first_claim(&self, now: Timestamp) -> Result<Option<Secret<String>>, TrustError> {
        if self.any()? { Ok(None) } else { self.new_claim(now).await.map(Some) }
    }

    /// Resolves once there is a user: a claim code that was shown is then of no use any more.
    pub async fn until_claimed(&self) -> Result<(), TrustError> {
        let mut watch = self.store.watch();
        while !self.any()? {
            if watch.next().await == dayzero_store::Event::Closed {
                return std::future::pending().await;
            }
        }
        Ok(())
    }

    fn any(&self) -> Result<bool, TrustError> {
        Ok(self.store.count(&USERS, "").map_err(TrustError::store("counting users"))? > 0)
    }

    /// A new claim code, in place of any before. For people at the machine only (Unix socket): it makes an admin.
    pub async fn new_claim(&self, now: Timestamp) -> Result<Secret<String>, TrustError> {
        let letter = || char::from(CODE_LETTERS[rand::random_range(0..CODE_LETTERS.len())]);
        let groups: Vec<String> = (0..5).map(|_| (0..4).map(|_| letter()).collect()).collect();
        let code = Secret::new(groups.join("-"));
        let record = ClaimRecord { code: hash(normal(&code)).await?, created: now };
        let mut tx = self.store.tx();
        tx.put(&CLAIM, &CLAIM_KEY.to_owned(), &record).map_err(TrustError::store("making a claim code"))?;
        tx.commit().await.map_err(TrustError::store("making a claim code"))?;
        Ok(code)
    }

    /// Logs in by claim code, once, and sets the password of `admin`. The code is spent in the same transaction.
    pub async fn claim(
        &self,
        code: &Secret<String>,
        password: &Secret<String>,
        address: &str,
        now: Timestamp,
    ) -> Result<LoggedIn, LoginError> {
        let doing = TrustError::store;
        check_password(password)?;
        self.may_try(CLAIM_KEY, address, now)?;
        let entry =
            self.store.entry(&CLAIM, &CLAIM_KEY.to_owned()).map_err(doing("reading the claim code"))?;
        let expected = entry.as_ref().map_or_else(PasswordHash::of_nothing, |entry| entry.value.code.clone());
        let right = matches(expected, normal(code)).await?;
        let Some(entry) = entry.filter(|_| right) else {
            self.failed(CLAIM_KEY, address, now);
            return Err(LoginError::WrongCode);
        };
        let admin: Name = "admin".parse().map_err(|_| LoginError::WrongCode)?;
        let user = UserRecord { role: Role::Admin, password: hash(password.clone()).await?, created: now };
        let (login, id) = new_session(admin.clone(), Role::Admin, address, now);
        let mut tx = self.store.tx();
        tx.expect_revision(&CLAIM, &CLAIM_KEY.to_owned(), entry.revision).map_err(doing("claiming"))?;
        tx.delete(&CLAIM, &CLAIM_KEY.to_owned()).map_err(doing("claiming"))?;
        tx.put(&USERS, &admin, &user).map_err(doing("claiming"))?;
        tx.put(&SESSIONS, &id, &login.session).map_err(doing("claiming"))?;
        match tx.commit().await {
            Err(e) if e.is_conflict() => Err(LoginError::WrongCode),
            Err(e) => Err(TrustError::store("claiming")(e).into()),
            Ok(_) => {
                self.succeeded(CLAIM_KEY, address);
                Ok(login)
            }
        }
    }

    /// Logs in by user name and password.
    pub async fn login(
        &self,
        user: &str,
        password: &Secret<String>,
        address: &str,
        now: Timestamp,
    ) -> Result<LoggedIn, LoginError> {
        self.may_try(user, address, now)?;
        let name = user.parse::<Name>().ok();
        let record = name.as_ref().map(|name| self.store.get(&USERS, name)).transpose();
        let record = record.map_err(TrustError::store("reading a user"))?.flatten();
        let expected =
            record.as_ref().map_or_else(PasswordHash::of_nothing, |record| record.password.clone());
        let short = password.expose().len() <= 4 * MAX_PASSWORD;
        let right =
            matches(expected, if short { password.clone() } else { Secret::new(String::new()) }).await?;
        let (Some(name), Some(record), true) = (name, record, right && short) else {
            self.failed(user, address, now);
            return Err(LoginError::Wrong);
        };
        self.succeeded(user, address);
        self.make_room(now).await?;
        let (login, id) = new_session(name, record.role, address, now);
        let mut tx = self.store.tx();
        tx.put(&SESSIONS, &id, &login.session).map_err(TrustError::store("beginning a session"))?;
        tx.commit().await.map_err(TrustError::store("beginning a session"))?;
        Ok(login)
    }

    /// The session of a cookie's id; `None` if there is none or its time is over.
    pub fn session(&self, id: &str, now: Timestamp) -> Result<Option<Session>, TrustError> {
        if id.len() != 64 {
            return Ok(None);
        }
        let session = self.store.get(&SESSIONS, &Sha256::of(id.as_bytes()));
        let session = session.map_err(TrustError::store("reading a session"))?;
        Ok(session.filter(|session| now < session.expires))
    }

    /// Ends a session.
    pub async fn logout(&self, id: &str) -> Result<(), TrustError> {
        let mut tx = self.store.tx();
        let doing = "ending a session";
        tx.delete(&SESSIONS, &Sha256::of(id.as_bytes())).map_err(TrustError::store(doing))?;
        tx.commit().await.map_err(TrustError::store(doing))?;
        Ok(())
    }

    /// Creates a user, or sets its role and password; its sessions end.
    pub async fn set_user(
        &self,
        name: &Name,
        role: Role,
        password: &Secret<String>,
        now: Timestamp,
    ) -> Result<(), LoginError> {
        check_password(password)?;
        let doing = TrustError::store;
        let created =
            self.store.get(&USERS, name).map_err(doing("reading a user"))?.map_or(now, |user| user.created);
        let record = UserRecord { role, password: hash(password.clone()).await?, created };
        let mut tx = self.store.tx();
        tx.put(&USERS, name, &record).map_err(doing("writing a user"))?;
        self.end_sessions(&mut tx, name)?;
        tx.commit().await.map_err(doing("writing a user"))?;
        Ok(())
    }

    /// Removes a user and ends its sessions.
    pub async fn remove_user(&self, name: &Name) -> Result<(), TrustError> {
        let doing = TrustError::store;
        let mut tx = self.store.tx();
        tx.delete(&USERS, name).map_err(doing("removing a user"))?;
        self.end_sessions(&mut tx, name)?;
        tx.commit().await.map_err(doing("removing a user"))?;
        Ok(())
    }

    /// All users.
    pub fn users(&self) -> Result<Vec<User>, TrustError> {
        let all = self.store.scan(&USERS, "").map_err(TrustError::store("listing users"))?;
        Ok(all
            .into_iter()
            .map(|e| User { name: e.key, role: e.value.role, created: e.value.created })
            .collect())
    }

    fn end_sessions(&self, tx: &mut dayzero_store::Transaction, name: &Name) -> Result<(), TrustError> {
        let doing = TrustError::store;
        for entry in self.store.scan(&SESSIONS, "").map_err(doing("listing sessions"))? {
            if entry.value.user == *name {
                tx.delete(&SESSIONS, &entry.key).map_err(doing("ending a session"))?;
            }
        }
        Ok(())
    }

    /// Removes sessions that are over, and the oldest above the limit.
    async fn make_room(&self, now: Timestamp) -> Result<(), TrustError> {
        let doing = TrustError::store;
        let mut all = self.store.scan(&SESSIONS, "").map_err(doing("listing sessions"))?;
        all.sort_by_key(|entry| std::cmp::Reverse(entry.value.created));
        let mut tx = self.store.tx();
        for (i, entry) in all.iter().enumerate() {
            if i + 1 >= MAX_SESSIONS || entry.value.expires <= now {
                tx.delete(&SESSIONS, &entry.key).map_err(doing("ending a session"))?;
            }
        }
        if !tx.is_empty() {
            tx.commit().await.map_err(doing("ending sessions"))?;
        }
        Ok(())
    }

    fn may_try(&self, user: &str, address: &str, now: Timestamp) -> Result<(), LoginError> {
        let pause = self.throttle.lock().unwrap_or_else(PoisonError::into_inner).pause(user, address, now);
        if pause.0 > 0 { Err(LoginError::Throttled { seconds: pause.0.div_ceil(1000) }) } else { Ok(()) }
    }

    fn failed(&self, user: &str, address: &str, now: Timestamp) {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).failed(user, address, now);
    }

    fn succeeded(&self, user: &str, address: &str) {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).succeeded(user, address);
    }
}

fn new_session(user: Name, role: Role, address: &str, now: Timestamp) -> (LoggedIn, Sha256) {
    let id = hex::encode(rand::random::<[u8; 32]>());
    let key = Sha256::of(id.as_bytes());
    let address = address.chars().take(64).collect();
    let session = Session { user, role, created: now, expires: now.plus(SESSION_TTL), address };
    (LoggedIn { id: Secret::new(id), session }, key)
}

fn check_password(password: &Secret<String>) -> Result<(), LoginError> {
    let length = password.expose().chars().count();
    if (MIN_PASSWORD..=MAX_PASSWORD).contains(&length) { Ok(()) } else { Err(LoginError::BadPassword) }
}

/// A code as typed: case, spaces and hyphens do not matter.
fn normal(code: &Secret<String>) -> Secret<String> {
    let letters = code.expose().chars().filter(char::is_ascii_alphanumeric).take(64);
    Secret::new(letters.map(|c| c.to_ascii_uppercase()).collect())
}

async fn hash(secret: Secret<String>) -> Result<PasswordHash, TrustError> {
    let work = tokio::task::spawn_blocking(move || PasswordHash::of(&secret)).await;
    work.unwrap_or_else(|e| Err(TrustError::Derive { detail: e.to_string() }))
}

async fn matches(expected: PasswordHash, secret: Secret<String>) -> Result<bool, TrustError> {
    let work = tokio::task::spawn_blocking(move || expected.matches(&secret)).await;
    work.unwrap_or_else(|e| Err(TrustError::Derive { detail: e.to_string() }))
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
