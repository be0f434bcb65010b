//! Users of the BMC (IPMI 2.0, 22.26 to 22.30): a fixed table of slots, passwords of at most 20 bytes.

use crate::RmcpError;
use crate::parse::{self, User};
use crate::tool::{Ipmi, Login};
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// Longest password in bytes (IPMI 2.0: 20).
pub const MAX_PASSWORD: usize = 20;
/// Longest user name in bytes.
pub const MAX_NAME: usize = 16;
/// Up to here a password is stored in the form that IPMI 1.5 knows too.
const SHORT_PASSWORD: usize = 16;

/// `exec` splits at blanks and quotes and cuts at `#`, so these never go in.
fn plain(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'`#\\".contains(&b))
}

impl Ipmi {
    /// All user slots.
    pub async fn users(&self) -> Result<Vec<User>, RmcpError> {
        Ok(parse::users(&self.run(&["user", "list", &self.channel.to_string()]).await?))
    }

    /// Makes an enabled administrator of that name with that password: the slot of that name, else the first free slot from 3
    /// on (1 is the anonymous user, 2 the factory's). Returns the slot. A password never reads back: try it.
    pub async fn put_user(&self, login: &Login) -> Result<u8, RmcpError> {
        if !plain(&login.user, MAX_NAME) {
            let rule = "1 to 16 printable ASCII characters without blank, quote, '#' or backslash";
            return Err(RmcpError::BadInput { what: "user name", rule });
        }
        if !plain(&login.password, MAX_PASSWORD) {
            let rule = "1 to 20 printable ASCII characters without blank, quote, '#' or backslash";
            return Err(RmcpError::BadInput { what: "password", rule });
        }
        let users = self.users().await?;
        let existing = users.iter().find(|u| u.name == login.user);
        let free = users.iter().find(|u| u.id >= 3 && u.name.is_empty());
        let slot = existing.or(free).ok_or(RmcpError::NoFreeUser { slots: users.len() })?.id;
        let lines = self.lines_for(slot, login, existing.is_none());
        self.run_secret(&format!("user set (slot {slot})"), &lines).await?;
        // Serial over LAN has its own permission; BMCs that do not know the command allow it to administrators.
        let (channel, id) = (self.channel.to_string(), slot.to_string());
        match self.run(&["sol", "payload", "enable", &channel, &id]).await {
            Ok(_) | Err(RmcpError::Command { .. }) => {}
            Err(other) => return Err(other),
        }
        let after = self.users().await?.into_iter().find(|u| u.id == slot);
        match after {
            Some(user) if user.name == login.user && user.messaging && user.privilege == "ADMINISTRATOR" => {
                Ok(slot)
            }
            other => Err(RmcpError::ReadBack {
                what: "user",
                wanted: format!("slot {slot} {} ADMINISTRATOR", login.user),
                observed: format!("{other:?}"),
            }),
        }
    }

    fn lines_for(&self, slot: u8, login: &Login, name_it: bool) -> Zeroizing<String> {
        let mut lines = Zeroizing::new(String::with_capacity(256));
        let size = if login.password.len() <= SHORT_PASSWORD { 16 } else { 20 };
        if name_it {
            let _ = writeln!(lines, "user set name {slot} {}", login.user);
        }
        let _ = writeln!(lines, "user set password {slot} {} {size}", login.password.as_str());
        let access = "callin=off link=off ipmi=on privilege=4";
        let _ = writeln!(lines, "channel setaccess {} {slot} {access}", self.channel);
        let _ = writeln!(lines, "user enable {slot}");
        lines
    }

    /// Disables a user. That it holds shows in its next login: try it.
    pub async fn disable_user(&self, name: &str) -> Result<(), RmcpError> {
        let users = self.users().await?;
        let missing = || RmcpError::NoSuchUser { user: name.to_owned() };
        let slot = users.iter().find(|u| u.name == name).ok_or_else(missing)?.id.to_string();
        self.run(&["user", "disable", &slot]).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_set_a_user() {
        let ipmi = Ipmi::new("127.0.0.1:623".parse().unwrap(), Login::new("ADMIN", "x"));
        let short = ipmi.lines_for(3, &Login::new("dayzero", "0123456789abcdef"), true);
        insta::assert_snapshot!(short.as_str(), @r"
        user set name 3 dayzero
        user set password 3 0123456789abcdef 16
        channel setaccess 1 3 callin=off link=off ipmi=on privilege=4
        user enable 3
        ");
        let long = ipmi.lines_for(3, &Login::new("dayzero", "0123456789abcdef0"), false);
        assert!(long.starts_with("user set password 3 0123456789abcdef0 20\n"), "{}", long.as_str());
    }

    #[tokio::test]
    async fn what_would_be_a_second_command_is_refused_unseen() {
        let ipmi = Ipmi::new("127.0.0.1:623".parse().unwrap(), Login::new("ADMIN", "x"));
        for bad in ["", "a b", "a\nuser disable 2", "a#b", "a\"b", "ä", "012345678901234567890"] {
            let error = ipmi.put_user(&Login::new("dayzero", bad)).await.unwrap_err();
            assert!(matches!(error, RmcpError::BadInput { what: "password", .. }), "{bad}: {error}");
        }
        let error = ipmi.put_user(&Login::new("a b", "good")).await.unwrap_err();
        assert!(matches!(error, RmcpError::BadInput { what: "user name", .. }));
    }
}
