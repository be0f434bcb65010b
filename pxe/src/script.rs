//! iPXE scripts, written by a typed builder.
//!
//! Purpose: the few scripts that we serve. Invariants: a script is made of commands of this file and of tokens and
//! URLs that were checked; a token holds no white space, no control character and none of iPXE's own signs, so no
//! text from the plan or the network can add a line, a command or a setting's expansion. Scripts leave to the
//! firmware by `exit 1`, since UEFI goes on to its next boot entry only after a failure.

use std::fmt;
use std::net::SocketAddr;

use dayzero_model::MacAddr;
use dayzero_model::boot::BootAction;

use crate::config::plain_name;

/// Longest token.
const MAX_TOKEN: usize = 512;
/// Longest kernel command line (x86: 2048 with its end).
const MAX_CMDLINE: usize = 2000;

/// Why a script cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A character that is not allowed.
    #[error(
        "kernel argument {position} {text:?}: character {character:?} is not allowed; use A-Z a-z 0-9 and . _ : / = , + @ % -"
    )]
    Character {
        /// Which argument, from 1.
        position: usize,
        /// The argument, cut to 80 characters.
        text: String,
        /// The character.
        character: char,
    },
    /// Empty, or too long.
    #[error("kernel argument {position} has {length} bytes: 1 to {MAX_TOKEN} are allowed")]
    Length {
        /// Which argument, from 1.
        position: usize,
        /// Its length.
        length: usize,
    },
    /// All together too long.
    #[error("the kernel command line has {0} bytes: at most {MAX_CMDLINE} are allowed")]
    Cmdline(usize),
    /// A file name that cannot stand in a URL.
    #[error("file name {0:?}: use A-Z a-z 0-9 . _ - and do not begin with '.'")]
    File(String),
}

/// A kernel argument that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token(String);

fn tokens(arguments: &[String]) -> Result<Vec<Token>, ScriptError> {
    let mut out = Vec::with_capacity(arguments.len());
    for (index, text) in arguments.iter().enumerate() {
        let position = index + 1;
        if text.is_empty() || text.len() > MAX_TOKEN {
            return Err(ScriptError::Length { position, length: text.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".:_/=,+@%-".contains(c);
        if let Some(character) = text.chars().find(|c| !allowed(*c)) {
            let text = text.chars().take(80).collect();
            return Err(ScriptError::Character { position, text, character });
        }
        out.push(Token(text.clone()));
    }
    let length = out.iter().map(|t| t.0.len() + 1).sum();
    if length > MAX_CMDLINE { Err(ScriptError::Cmdline(length)) } else { Ok(out) }
}

/// A URL of our own HTTP server: address and checked name only.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnUrl(String);

/// How a file is fetched.
#[derive(Clone, Copy)]
enum By {
    Http(SocketAddr),
    Https(SocketAddr),
}

impl OwnUrl {
    fn file(by: By, name: &str) -> Result<Self, ScriptError> {
        let (scheme, server) = match by {
            By::Http(server) => ("http", server),
            By::Https(server) => ("https", server),
        };
        if plain_name(name) {
            Ok(Self(format!("{scheme}://{server}/boot/file/{name}")))
        } else {
            Err(ScriptError::File(name.chars().take(80).collect()))
        }
    }

    fn script(server: SocketAddr, mac: MacAddr) -> Self {
        Self(format!("http://{server}/boot/script?mac={mac}"))
    }
}

enum Line {
    Echo(&'static str),
    Kernel {
        url: OwnUrl,
        arguments: Vec<Token>,
        or: Label,
    },
    Initrd {
        url: OwnUrl,
        or: Label,
    },
    Boot {
        or: Label,
    },
    At(Label),
    /// Forgets what was fetched.
    Free,
    Sleep(u32),
    Chain(OwnUrl),
    Leave,
}

#[derive(Clone, Copy)]
struct Label(&'static str);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Echo(text) => write!(f, "echo {text}"),
            Line::Kernel { url, arguments, or } => {
                write!(f, "kernel {}", url.0)?;
                for Token(argument) in arguments {
                    write!(f, " {argument}")?;
                }
                write!(f, " || goto {}", or.0)
            }
            Line::Initrd { url, or } => write!(f, "initrd {} || goto {}", url.0, or.0),
            Line::Boot { or } => write!(f, "boot || goto {}", or.0),
            Line::At(label) => write!(f, ":{}", label.0),
            Line::Free => f.write_str("imgfree"),
            Line::Sleep(seconds) => write!(f, "sleep {seconds}"),
            Line::Chain(url) => write!(f, "chain --replace {}", url.0),
            Line::Leave => f.write_str("exit 1"),
        }
    }
}

/// What the scripts of one server refer to.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where our HTTP boot listens, by the address family that the client asks in.
    pub server: SocketAddr,
    /// Where it listens for TLS, if this client can fetch so; what fails there is fetched by HTTP.
    pub secure: Option<SocketAddr>,
    /// Name of the kernel.
    pub kernel: &'a str,
    /// Name of the initramfs.
    pub initrd: &'a str,
}

/// The script for an action, for the client with this MAC.
///
/// # Errors
/// [`ScriptError`] if the action holds what cannot stand in a script.
pub fn script(action: &BootAction, mac: MacAddr, place: &Place<'_>) -> Result<String, ScriptError> {
    let failed = Label("failed");
    let lines = match action {
        BootAction::Discovery { cmdline, .. } => {
            let mut arguments = vec![Token(format!("initrd={}", place.initrd))];
            arguments.extend(tokens(cmdline)?);
            let mut lines = vec![Line::Echo("Dayzero: loading the discovery image")];
            if let Some(secure) = place.secure {
                let plain = Label("plain");
                lines.extend(load(By::Https(secure), place, &arguments, plain)?);
                lines.extend([Line::Boot { or: failed }, Line::At(plain)]);
                lines.extend([Line::Echo("Dayzero: HTTPS failed, going on by HTTP"), Line::Free]);
            }
            lines.extend(load(By::Http(place.server), place, &arguments, failed)?);
            lines.extend([
                Line::Boot { or: failed },
                Line::At(failed),
                Line::Echo("Dayzero: loading failed, asking again in 5 seconds"),
                Line::Sleep(5),
                Line::Chain(OwnUrl::script(place.server, mac)),
                Line::Leave,
            ]);
            lines
        }
        BootAction::LocalDisk => {
            vec![Line::Echo("Dayzero: no boot is open, leaving to the next boot device"), Line::Leave]
        }
        BootAction::Refuse => vec![Line::Echo("Dayzero: nothing to boot for this machine"), Line::Leave],
    };
    let mut text = String::from("#!ipxe\n");
    for line in lines {
        text.push_str(&line.to_string());
        text.push('\n');
    }
    Ok(text)
}

/// Fetches kernel and initramfs.
fn load(by: By, place: &Place<'_>, arguments: &[Token], or: Label) -> Result<[Line; 2], ScriptError> {
    let kernel = OwnUrl::file(by, place.kernel)?;
    let initrd = OwnUrl::file(by, place.initrd)?;
    Ok([Line::Kernel { url: kernel, arguments: arguments.to_vec(), or }, Line::Initrd { url: initrd, or }])
}

/// What an agent that was started without a script must know of its boot: the `dayzero.*` words of the kernel command
/// line, in one line; none if no boot is open.
///
/// # Errors
/// [`ScriptError`] if the action holds what cannot stand on a command line.
pub fn words(action: &BootAction) -> Result<Option<String>, ScriptError> {
    let BootAction::Discovery { cmdline, .. } = action else { return Ok(None) };
    let words = tokens(cmdline)?;
    let ours: Vec<&str> =
        words.iter().map(|Token(word)| word.as_str()).filter(|word| word.starts_with("dayzero.")).collect();
    Ok(Some(ours.join(" ") + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayzero_model::BootId;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);

    fn place() -> Place<'static> {
        let (server, secure) = ("10.77.0.2:8080".parse().unwrap(), None);
        Place { server, secure, kernel: "vmlinuz", initrd: "initrd.img" }
    }

    fn discovery(cmdline: &[&str]) -> Result<String, ScriptError> {
        let cmdline = cmdline.iter().map(|s| (*s).to_owned()).collect();
        script(&BootAction::Discovery { boot: BootId(0xd15c), cmdline }, MAC, &place())
    }

    #[test]
    fn golden() {
        let text = discovery(&[
            "console=ttyS0",
            "quiet",
            "dayzero.ip=10.77.0.11/24",
            "dayzero.enrol=https://10.77.0.2:8444",
        ]);
        insta::assert_snapshot!(text.unwrap(), @r"
        #!ipxe
        echo Dayzero: loading the discovery image
        kernel http://10.77.0.2:8080/boot/file/vmlinuz initrd=initrd.img console=ttyS0 quiet dayzero.ip=10.77.0.11/24 dayzero.enrol=https://10.77.0.2:8444 || goto failed
        initrd http://10.77.0.2:8080/boot/file/initrd.img || goto failed
        boot || goto failed
        :failed
        echo Dayzero: loading failed, asking again in 5 seconds
        sleep 5
        chain --replace http://10.77.0.2:8080/boot/script?mac=52:54:00:77:00:01
        exit 1
        ");
        let by_ipv6 = Place { server: "[fd77::a4d:2]:8080".parse().unwrap(), ..place() };
        let action = BootAction::Discovery { boot: BootId(0xd15c), cmdline: vec!["quiet".into()] };
        insta::assert_snapshot!(script(&action, MAC, &by_ipv6).unwrap(), @r"
        #!ipxe
        echo Dayzero: loading the discovery image
        kernel http://[fd77::a4d:2]:8080/boot/file/vmlinuz initrd=initrd.img quiet || goto failed
        initrd http://[fd77::a4d:2]:8080/boot/file/initrd.img || goto failed
        boot || goto failed
        :failed
        echo Dayzero: loading failed, asking again in 5 seconds
        sleep 5
        chain --replace http://[fd77::a4d:2]:8080/boot/script?mac=52:54:00:77:00:01
        exit 1
        ");
        let by_https = Place { secure: "10.77.0.2:8445".parse().ok(), ..place() };
        insta::assert_snapshot!(script(&action, MAC, &by_https).unwrap(), @r"
        #!ipxe
        echo Dayzero: loading the discovery image
        kernel https://10.77.0.2:8445/boot/file/vmlinuz initrd=initrd.img quiet || goto plain
        initrd https://10.77.0.2:8445/boot/file/initrd.img || goto plain
        boot || goto failed
        :plain
        echo Dayzero: HTTPS failed, going on by HTTP
        imgfree
        kernel http://10.77.0.2:8080/boot/file/vmlinuz initrd=initrd.img quiet || goto failed
        initrd http://10.77.0.2:8080/boot/file/initrd.img || goto failed
        boot || goto failed
        :failed
        echo Dayzero: loading failed, asking again in 5 seconds
        sleep 5
        chain --replace http://10.77.0.2:8080/boot/script?mac=52:54:00:77:00:01
        exit 1
        ");
        insta::assert_snapshot!(script(&BootAction::LocalDisk, MAC, &place()).unwrap(), @r"
        #!ipxe
        echo Dayzero: no boot is open, leaving to the next boot device
        exit 1
        ");
        insta::assert_snapshot!(script(&BootAction::Refuse, MAC, &place()).unwrap(), @r"
        #!ipxe
        echo Dayzero: nothing to boot for this machine
        exit 1
        ");
    }

    #[test]
    fn an_agent_is_told_its_own_words_alone() {
        let cmdline = ["console=ttyS0", "quiet", "dayzero.boot=ab", "dayzero.ip=10.77.0.11/24"];
        let action =
            BootAction::Discovery { boot: BootId(0xab), cmdline: cmdline.map(str::to_owned).to_vec() };
        assert_eq!(words(&action), Ok(Some("dayzero.boot=ab dayzero.ip=10.77.0.11/24\n".to_owned())));
        assert_eq!(words(&BootAction::LocalDisk), Ok(None));
        let bad = BootAction::Discovery { boot: BootId(1), cmdline: vec!["dayzero.x=a\nb".into()] };
        assert!(words(&bad).is_err());
    }

    #[test]
    fn what_could_be_a_command_is_refused_and_named() {
        for bad in [
            "a b",
            "a\nshell",
            "a\rshell",
            "${net0/mac}",
            "a||shell",
            "a&&b",
            "a;b",
            "#x",
            "a\tb",
            "\"a\"",
            "ä",
            "a\0b",
        ] {
            let error = discovery(&["quiet", bad]).unwrap_err();
            assert!(matches!(error, ScriptError::Character { position: 2, .. }), "{bad:?}: {error}");
        }
        assert_eq!(discovery(&[""]), Err(ScriptError::Length { position: 1, length: 0 }));
        let long = "x".repeat(500);
        assert!(matches!(discovery(&[&long, &long, &long, &long]), Err(ScriptError::Cmdline(_))));
        let evil = Place { kernel: "k\nshell", ..place() };
        let action = BootAction::Discovery { boot: BootId(1), cmdline: vec![] };
        assert!(matches!(script(&action, MAC, &evil), Err(ScriptError::File(_))));
    }

    proptest! {
        #[test]
        fn no_argument_changes_the_shape_of_a_script(arguments in proptest::collection::vec(any::<String>(), 0..4)) {
            let cmdline: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if let Ok(text) = discovery(&cmdline) {
                let plain = discovery(&[]).unwrap();
                let words = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
                let shape: Vec<String> = text.lines().map(words).collect();
                prop_assert_eq!(shape, plain.lines().map(words).collect::<Vec<_>>());
                let kernel = text.lines().nth(2).unwrap();
                prop_assert_eq!(kernel.split(' ').count(), 3 + cmdline.len() + 3);
                prop_assert!(!text.contains('$'));
            }
        }
    }
}
