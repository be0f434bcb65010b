//! The passwords that `ipmi_sim` holds now, from the file in which it keeps its users.

use dayzero_model::Secret;
use std::path::Path;

/// Passwords of all users of the BMC in `dir`; empty before the first one was changed.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn passwords(dir: &Path, name: &str) -> std::io::Result<Vec<Secret<String>>> {
    let file = dir.join("state/ipmi_sim").join(name).join("users.mc20");
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `3.passwd:d:abc\00\00…`: printable bytes as they are, others as `\XX`.
fn parse(text: &str) -> Vec<Secret<String>> {
    let values = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(":d:")?;
        key.ends_with(".passwd").then_some(value)
    });
    let plain = values.map(|value| {
        let mut parts = value.split('\\');
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
            plain.extend(code.filter(|byte| *byte != 0).map(char::from));
            plain.push_str(part.get(2..).unwrap_or_default());
        }
        plain
    });
    plain.filter(|plain| !plain.is_empty()).map(Secret::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_as_ipmi_sim_writes_it() {
        let text = "3.max_sessions:i:0\n3.passwd:d:aB3-xY_9zQ+7k/mN\\00\\00\\00\\00\n3.username:d:dayzero\\00\n\
                    2.passwd:d:a\\5cb\\00\n63.passwd:d:\\00\\00\n";
        let plain: Vec<_> = parse(text).iter().map(|secret| secret.expose().clone()).collect();
        assert_eq!(plain, ["aB3-xY_9zQ+7k/mN", "a\\b"]);
        let dir = tempfile::tempdir().unwrap();
        assert!(passwords(dir.path(), "bmc-host2").unwrap().is_empty());
    }
}
