//! What the appliance shows on its serial console, read as a person reads it.

/// The last whole block of a console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Where the console is.
    pub consoles: Vec<String>,
    /// Of its certificate.
    pub fingerprint: String,
    /// While nobody has claimed it.
    pub claim: Option<String>,
    /// What a person must do something about.
    pub faults: Vec<String>,
}

const BEGIN: &str = "Dayzero appliance ";

/// The newest block that ends with `ready`; none while it does not serve.
pub fn read(console: &str) -> Option<Shown> {
    let at = console.rfind(BEGIN)?;
    let mut shown = Shown::default();
    for line in console[at..].lines().skip(1).map(str::trim) {
        match line.split_once(": ") {
            Some(("console", url)) => shown.consoles.push(url.to_owned()),
            Some(("fingerprint", print)) => shown.fingerprint = print.to_owned(),
            Some(("claim", code)) => shown.claim = Some(code.to_owned()),
            Some(("fault", what)) => shown.faults.push(what.to_owned()),
            _ if line == "ready" => return Some(shown),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_block_counts() {
        let first = "grub\r\n\r\nDayzero appliance 0.1\r\nnetwork: ens2 x\r\nconsole: https://10.0.2.15:8443/\r\n\
                     fingerprint: ab\r\nclaim: A-B\r\nready\r\n";
        let shown = read(first).unwrap();
        assert_eq!(
            (shown.consoles.as_slice(), shown.claim.as_deref()),
            (&["https://10.0.2.15:8443/".to_owned()][..], Some("A-B"))
        );
        let later = format!("{first}\r\nDayzero appliance 0.1\r\nfingerprint: ab\r\nfault: x\r\nready\r\n");
        assert_eq!(read(&later).unwrap().claim, None);
        let starting = format!("{first}\r\nDayzero appliance 0.1\r\nstarting\r\n");
        assert_eq!(read(&starting), None, "it starts anew");
        assert_eq!(read(""), None);
    }
}
