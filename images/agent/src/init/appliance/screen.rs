//! What a person in front of the appliance sees: one block of lines on each of the kernel's consoles (`tty0`, `ttyS0`).
//!
//! Invariants: a block is written only when it differs from the last one; a screen is cleared first, so that a claim
//! code does not stay on it once it is used (a serial line cannot be cleared); nothing of it goes to any log; control
//! characters from outside are never written.

use dayzero_model::Secret;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

/// Faults by what they are about, so that a mended one can be taken away.
pub(crate) type Faults = BTreeMap<String, String>;

/// All that is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// A line a NIC: name, MAC, addresses, where from.
    pub(crate) nics: Vec<String>,
    /// Addresses that others may reach.
    pub(crate) addresses: Vec<IpAddr>,
    /// What is wrong, and what to do.
    pub(crate) faults: Faults,
    /// What `dayzero serve` said, once it is ready.
    pub(crate) serving: Option<Serving>,
    /// What is done just now, until it serves.
    pub(crate) doing: String,
}

/// What `dayzero serve` said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Where its operators' listener is, `ADDRESS:PORT`.
    pub(crate) listen: String,
    /// Fingerprint of its certificate.
    pub(crate) fingerprint: String,
    /// While nobody has claimed it.
    pub(crate) claim: Option<Secret<String>>,
}

impl View {
    /// The block.
    fn text(&self) -> String {
        let mut text = format!("\nDayzero appliance {}\n", env!("CARGO_PKG_VERSION"));
        let mut line = |key: &str, value: &str| {
            let clean: String = value.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            let _infallible = writeln!(text, "{key}{clean}");
        };
        for nic in &self.nics {
            line("network: ", nic);
        }
        if let Some(serving) = &self.serving {
            let (urls, fault) = self.urls(serving);
            for url in urls {
                line("console: ", &url);
            }
            line("fingerprint: ", &serving.fingerprint);
            if let Some(claim) = &serving.claim {
                line("claim: ", claim.expose());
            }
            if let Some(fault) = fault {
                line("fault: ", &fault);
            }
        }
        for fault in self.faults.values() {
            for part in fault.lines() {
                line("fault: ", part);
            }
        }
        match self.serving {
            Some(_) => line("ready", ""),
            None => line("", &self.doing),
        }
        text
    }

    /// Where a browser elsewhere finds the console, and why nobody does.
    fn urls(&self, serving: &Serving) -> (Vec<String>, Option<String>) {
        let Ok(listen) = serving.listen.parse::<std::net::SocketAddr>() else { return (Vec::new(), None) };
        let url = |ip: &IpAddr| format!("https://{}/", std::net::SocketAddr::new(*ip, listen.port()));
        let ip = listen.ip();
        if ip.is_loopback() {
            let told = format!(
                "operators.listen in serve.toml is {listen}: nobody can reach the console; set it to 0.0.0.0:{} or to one of \
                 the addresses above",
                listen.port()
            );
            return (Vec::new(), Some(told));
        }
        if !ip.is_unspecified() {
            return (vec![url(&ip)], None);
        }
        let none = "the appliance has no address: plug a cable in, or write network.conf on the disk's EFI partition";
        let fault = self.addresses.is_empty().then(|| none.to_owned());
        (self.addresses.iter().map(url).collect(), fault)
    }
}

/// The consoles.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    last: Option<String>,
}

impl Screen {
    /// Shows the view, if it is not what is shown already.
    pub(crate) fn show(&mut self, view: &View) {
        let text = view.text();
        if self.last.as_ref() == Some(&text) {
            return;
        }
        for console in consoles() {
            let screen = console.to_string_lossy().starts_with("/dev/tty") && !is_serial(&console);
            let clear = if screen { "\x1b[2J\x1b[3J\x1b[H" } else { "" };
            if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(&console) {
                let _ = file.write_all(format!("{clear}{}", text.replace('\n', "\r\n")).as_bytes());
            }
        }
        self.last = Some(text);
    }
}

fn is_serial(console: &std::path::Path) -> bool {
    console.to_string_lossy().starts_with("/dev/ttyS")
}

/// The kernel's consoles, as its command line named them.
fn consoles() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let found: Vec<PathBuf> = text.split_whitespace().map(|name| PathBuf::from("/dev").join(name)).collect();
    if found.is_empty() { vec![PathBuf::from("/dev/console")] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            nics: vec![
                "ens2 52:54:00:12:34:56 10.0.2.15/24 (dhcp)".to_owned(),
                "ens3 52:54:00:12:34:57 no cable".to_owned(),
            ],
            addresses: vec!["10.0.2.15".parse().unwrap()],
            faults: Faults::new(),
            serving: Some(Serving {
                listen: "0.0.0.0:8443".to_owned(),
                fingerprint: "ab".repeat(32),
                claim: Some(Secret::new("ABCD-EFGH".to_owned())),
            }),
            doing: "starting".to_owned(),
        }
    }

    #[test]
    fn what_a_person_reads() {
        let text = view().text().replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!(text, @r#"

        Dayzero appliance VERSION
        network: ens2 52:54:00:12:34:56 10.0.2.15/24 (dhcp)
        network: ens3 52:54:00:12:34:57 no cable
        console: https://10.0.2.15:8443/
        fingerprint: abababababababababababababababababababababababababababababababab
        claim: ABCD-EFGH
        ready
        "#);
        let mut claimed = view();
        claimed.serving.as_mut().unwrap().claim = None;
        assert!(!claimed.text().contains("claim"));
        let mut broken = View { serving: None, doing: "makes the data partition".to_owned(), ..view() };
        broken.faults.insert("serve".to_owned(), "line one\nline \u{1b}[2Jtwo".to_owned());
        let text = broken.text();
        assert!(text.ends_with("fault: line one\nfault: line ?[2Jtwo\nmakes the data partition\n"), "{text}");
    }

    #[test]
    fn a_console_that_nobody_reaches_is_a_fault() {
        let with = |listen: &str, addresses: &[&str]| {
            let mut view = view();
            view.addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            view.serving.as_mut().unwrap().listen = listen.to_owned();
            view.text()
        };
        let local = with("127.0.0.1:8443", &["10.0.2.15"]);
        assert!(local.contains("fault: operators.listen") && !local.contains("console:"), "{local}");
        let bare = with("0.0.0.0:8443", &[]);
        assert!(bare.contains("fault: the appliance has no address") && !bare.contains("console:"), "{bare}");
        assert!(with("192.0.2.1:443", &["10.0.2.15"]).contains("console: https://192.0.2.1:443/"));
        assert!(with("[::]:8443", &["2001:db8::1"]).contains("console: https://[2001:db8::1]:8443/"));
    }
}
