//! Accounts of the service: listing, creating, changing, and the policy that a password must meet.

use crate::client::{Client, ROOT, Resource};
use crate::{RedfishError, view};
use reqwest::StatusCode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Accounts read at most: real services have 10 to 16 slots.
const MAX_ACCOUNTS: usize = 64;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its path on the service.
    pub path: String,
    /// `Id`: the slot's number where slots are fixed.
    pub id: String,
    /// `UserName`; none in an empty slot.
    pub user: Option<String>,
    /// `RoleId`.
    pub role: Option<String>,
    /// `Enabled`.
    pub enabled: Option<bool>,
    /// `Locked`.
    pub locked: Option<bool>,
}

impl Account {
    fn from(path: &str, body: &Value) -> Self {
        let owned = |pointer: &str| view::text(body, pointer).map(str::to_owned);
        Self {
            path: path.to_owned(),
            id: owned("/Id").unwrap_or_default(),
            user: owned("/UserName"),
            role: owned("/RoleId"),
            enabled: body.get("Enabled").and_then(Value::as_bool),
            locked: body.get("Locked").and_then(Value::as_bool),
        }
    }
}

/// What `AccountService` says about passwords. Lengths in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountPolicy {
    /// `MinPasswordLength`; 0 or absent is none.
    pub min_length: Option<u32>,
    /// `MaxPasswordLength`.
    pub max_length: Option<u32>,
    /// `AccountLockoutThreshold`: failed logins before a lock; 0 or absent is none.
    pub lockout_after: Option<u32>,
}

impl AccountPolicy {
    fn from(body: &Value) -> Self {
        let number = |name: &str| {
            let n = body.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
            n.filter(|n| *n > 0)
        };
        Self {
            min_length: number("MinPasswordLength"),
            max_length: number("MaxPasswordLength"),
            lockout_after: number("AccountLockoutThreshold"),
        }
    }
}

/// An account to create or to bring in line.
#[derive(Clone)]
pub struct NewAccount {
    /// Account name.
    pub user: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// `RoleId`, such as `Administrator`.
    pub role: String,
    /// Slots with a number below this are never filled, where the service has fixed slots (the first is often reserved).
    pub first_slot: u32,
}

impl NewAccount {
    /// An administrator.
    pub fn new(user: impl Into<String>, password: impl Into<String>, first_slot: u32) -> Self {
        let password = Zeroizing::new(password.into());
        Self { user: user.into(), password, role: "Administrator".into(), first_slot }
    }
}

impl std::fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount")
            .field("user", &self.user)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Client {
    async fn account_service(&self) -> Result<Resource, RedfishError> {
        let root = self.get(ROOT).await?;
        self.follow(&root, "/AccountService").await
    }

    /// The password policy.
    pub async fn account_policy(&self) -> Result<AccountPolicy, RedfishError> {
        Ok(AccountPolicy::from(&self.account_service().await?.body))
    }

    /// All accounts, empty slots among them.
    pub async fn accounts(&self) -> Result<Vec<Account>, RedfishError> {
        Ok(self.account_resources().await?.1.into_iter().map(|r| Account::from(&r.path, &r.body)).collect())
    }

    async fn account_resources(&self) -> Result<(Resource, Vec<Resource>), RedfishError> {
        let service = self.account_service().await?;
        let collection = self.follow(&service, "/Accounts").await?;
        let mut accounts = Vec::new();
        for link in self.members(&collection).await?.into_iter().take(MAX_ACCOUNTS) {
            accounts.push(self.get(&link).await?);
        }
        Ok((collection, accounts))
    }

    /// Makes an enabled account with this name and password: changes the one of that name, else creates one, else fills an
    /// empty slot where slots are fixed. Reads it back (a password never reads back: try it).
    pub async fn put_account(&self, new: &NewAccount) -> Result<Account, RedfishError> {
        let (collection, accounts) = self.account_resources().await?;
        let of_name = |r: &&Resource| view::text(&r.body, "/UserName") == Some(new.user.as_str());
        if let Some(existing) = accounts.iter().find(of_name) {
            let mut body = json!({ "Password": new.password.as_str() });
            let now = Account::from(&existing.path, &existing.body);
            if now.enabled == Some(false) {
                body["Enabled"] = true.into();
            }
            if now.locked == Some(true) {
                body["Locked"] = false.into();
            }
            if now.role.as_deref() != Some(new.role.as_str()) {
                body["RoleId"] = new.role.as_str().into();
            }
            self.patch(existing, &body, true).await?;
            return self.read_back(&existing.path, new).await;
        }
        let body = json!({
            "UserName": new.user, "Password": new.password.as_str(), "RoleId": new.role, "Enabled": true,
        });
        let may_post = collection.allow.as_deref().is_none_or(|allow| allow.contains("POST"));
        if may_post {
            match self.post(&collection.path, &body, true).await {
                Ok(answer) => {
                    let path = match answer.headers.get("location").and_then(|l| l.to_str().ok()) {
                        Some(link) => self.local_path(&collection.path, link)?,
                        None => self.account_path(&new.user).await?,
                    };
                    return self.read_back(&path, new).await;
                }
                Err(RedfishError::Http { status, .. })
                    if status == StatusCode::METHOD_NOT_ALLOWED || status == StatusCode::NOT_IMPLEMENTED => {}
                Err(other) => return Err(other),
            }
        }
        let empty = |r: &&Resource| {
            let account = Account::from(&r.path, &r.body);
            account.user.is_none() && account.id.parse::<u32>().is_ok_and(|slot| slot >= new.first_slot)
        };
        let slot = accounts.iter().find(empty);
        let slot = slot.ok_or_else(|| RedfishError::Unsupported { what: "free account slot".into() })?;
        self.patch(slot, &body, true).await?;
        self.read_back(&slot.path, new).await
    }

    async fn account_path(&self, user: &str) -> Result<String, RedfishError> {
        let found = self.accounts().await?.into_iter().find(|a| a.user.as_deref() == Some(user));
        found.map(|a| a.path).ok_or_else(|| RedfishError::Unsupported { what: format!("account '{user}'") })
    }

    async fn read_back(&self, path: &str, new: &NewAccount) -> Result<Account, RedfishError> {
        let account = Account::from(path, &self.get(path).await?.body);
        let holds = account.user.as_deref() == Some(new.user.as_str())
            && account.enabled != Some(false)
            && account.role.as_deref().is_none_or(|role| role == new.role);
        if holds {
            return Ok(account);
        }
        let wanted = format!("{} as {}, enabled", new.user, new.role);
        Err(RedfishError::ReadBack { what: "account", wanted, observed: format!("{account:?}") })
    }

    /// Enables or disables the account of that name, and reads it back.
    pub async fn set_account_enabled(&self, user: &str, enabled: bool) -> Result<Account, RedfishError> {
        let path = self.account_path(user).await?;
        let resource = self.get(&path).await?;
        if resource.body.get("Enabled").and_then(Value::as_bool) != Some(enabled) {
            self.patch(&resource, &json!({ "Enabled": enabled }), false).await?;
        }
        let account = Account::from(&path, &self.get(&path).await?.body);
        if account.enabled == Some(enabled) {
            return Ok(account);
        }
        let observed = format!("{:?}", account.enabled);
        Err(RedfishError::ReadBack { what: "Enabled of the account", wanted: enabled.to_string(), observed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captures::capture;

    #[test]
    fn policies_of_two_vendors() {
        let dell = AccountPolicy::from(&capture("dell-account-service"));
        assert_eq!((dell.min_length, dell.max_length, dell.lockout_after), (None, Some(40), None));
        let smc = AccountPolicy::from(&capture("supermicro-account-service"));
        assert_eq!((smc.min_length, smc.max_length, smc.lockout_after), (Some(8), Some(20), Some(3)));
    }

    #[test]
    fn a_blank_name_is_an_empty_slot() {
        assert_eq!(Account::from("/a/2", &capture("dell-account")).user.as_deref(), Some("root"));
        let mut body = capture("dell-account");
        body["UserName"] = "".into();
        assert_eq!(Account::from("/a/3", &body).user, None);
    }
}
