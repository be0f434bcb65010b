//! The head of a request: HTTP/1.0 or 1.1, `GET` or `HEAD`, without a body (RFC 9112).
//!
//! Purpose: `httparse` reads the grammar, this file judges. Invariants: a head is bounded in bytes and headers; whatever
//! could be read in two ways (two hosts, a body, white space where none may be) is refused and the connection closed;
//! nothing is decoded, since every name that we serve stands in a URL as it is.

/// Longest head, bytes.
pub(crate) const MAX_HEAD: usize = 8 * 1024;
/// Most headers.
const MAX_HEADERS: usize = 48;
/// Longest target.
const MAX_TARGET: usize = 2048;

/// Whether a client comes back when it is told to (`503` with `Retry-After`), by its `User-Agent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patient {
    /// Nobody knows.
    #[default]
    Perhaps,
    /// iPXE does.
    Yes,
    /// Firmware and GRUB give up.
    No,
}

impl Patient {
    fn of(agent: &str) -> Self {
        let is = |name: &str| agent.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        if is("iPXE/") {
            Self::Yes
        } else if is("UefiHttpBoot") || is("GRUB") {
            Self::No
        } else {
            Self::Perhaps
        }
    }
}

/// A request, as far as we look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `HEAD`: the answer has no body.
    pub(crate) head: bool,
    /// Path, from its first `/`.
    pub(crate) path: String,
    /// Query, without `?`.
    pub(crate) query: String,
    /// The connection stays open after the answer.
    pub(crate) keep: bool,
    /// HTTP/1.0: what is usual in 1.1 must be said.
    pub(crate) old: bool,
    /// `Range`.
    pub(crate) range: Option<String>,
    /// `If-Range`.
    pub(crate) if_range: Option<String>,
    /// `If-None-Match`.
    pub(crate) if_none_match: Option<String>,
    /// `User-Agent`.
    pub(crate) patient: Patient,
}

/// Why a request is not served; the connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    /// Status code.
    pub(crate) status: u16,
    /// A line for whoever reads it.
    pub(crate) why: &'static str,
}

/// Reads a head from the beginning of `bytes`: the request and the head's length, or nothing yet.
///
/// # Errors
/// [`Bad`], for good.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Asked, usize)>, Bad> {
    let bad = |status, why| Err(Bad { status, why });
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => return bad(431, "the head is too long"),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return bad(431, "too many headers"),
        Err(httparse::Error::Version) => return bad(505, "HTTP/1.0 and HTTP/1.1 are spoken here"),
        Err(_) => return bad(400, "no request"),
    };
    let mut asked = Asked { old: request.version == Some(0), ..Asked::default() };
    asked.keep = !asked.old;
    match request.method {
        Some("GET") => {}
        Some("HEAD") => asked.head = true,
        _ => return bad(405, "only GET and HEAD are served here"),
    }
    target(request.path.unwrap_or_default(), &mut asked)?;
    let mut hosts = 0;
    for header in request.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = || std::str::from_utf8(header.value).map(str::trim).unwrap_or_default();
        if is("host") {
            hosts += 1;
        } else if is("transfer-encoding") || (is("content-length") && value() != "0") {
            return bad(400, "a request has no body here");
        } else if is("connection") {
            for word in value().split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    asked.keep = false;
                } else if word.eq_ignore_ascii_case("keep-alive") && asked.old {
                    asked.keep = true;
                }
            }
        } else if is("user-agent") {
            asked.patient = Patient::of(value());
        } else if is("range") {
            asked.range = once(asked.range.is_some(), value())?;
        } else if is("if-range") {
            asked.if_range = once(asked.if_range.is_some(), value())?;
        } else if is("if-none-match") {
            asked.if_none_match = once(asked.if_none_match.is_some(), value())?;
        }
    }
    if hosts > 1 || (hosts == 0 && !asked.old) {
        return bad(400, "one Host is asked for");
    }
    Ok(Some((asked, length)))
}

fn once(known: bool, value: &str) -> Result<Option<String>, Bad> {
    if known { Err(Bad { status: 400, why: "a header is given twice" }) } else { Ok(Some(value.to_owned())) }
}

/// Origin form, or absolute form as a proxy's client would send it (RFC 9112 section 3.2).
fn target(text: &str, asked: &mut Asked) -> Result<(), Bad> {
    if text.len() > MAX_TARGET {
        return Err(Bad { status: 414, why: "the target is too long" });
    }
    let text = match text.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => text,
    };
    if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Bad { status: 400, why: "a target begins with '/' and is ASCII" });
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    path.clone_into(&mut asked.path);
    query.clone_into(&mut asked.query);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(head: &str) -> Result<Asked, Bad> {
        let bytes = head.replace('\n', "\r\n");
        parse(bytes.as_bytes()).map(|read| {
            let (asked, length) = read.expect("a whole head");
            assert_eq!(length, bytes.len());
            asked
        })
    }

    #[test]
    fn reads_what_loaders_and_agents_send() {
        let ipxe = "GET /boot/script?mac=52:54:00:77:00:11 HTTP/1.1\nConnection: keep-alive\nUser-Agent: iPXE/1.0.0+\n\
                    Host: 10.77.0.2:8080\n\n";
        let asked = get(ipxe).unwrap();
        assert_eq!((asked.path.as_str(), asked.query.as_str()), ("/boot/script", "mac=52:54:00:77:00:11"));
        assert!(asked.keep && !asked.head && !asked.old && asked.patient == Patient::Yes);
        for (agent, patient) in [
            ("UefiHttpBoot/1.0", Patient::No),
            ("GRUB 2.06-13+deb12u1", Patient::No),
            ("curl/7.88.1", Patient::Perhaps),
            ("", Patient::Perhaps),
        ] {
            let head = format!("GET /boot/file/uki.efi HTTP/1.1\nHost: a\nUser-Agent: {agent}\n\n");
            assert_eq!(get(&head).unwrap().patient, patient, "{agent}");
        }
        let asked =
            get("HEAD http://10.77.0.2/x HTTP/1.1\nHost: a\nConnection: x, Close\nrange: bytes=0-1\n\n")
                .unwrap();
        assert!(asked.head && !asked.keep);
        assert_eq!((asked.path.as_str(), asked.range.as_deref()), ("/x", Some("bytes=0-1")));
        let asked = get("GET / HTTP/1.0\n\n").unwrap();
        assert!(asked.old && !asked.keep);
        assert!(get("GET / HTTP/1.0\nConnection: Keep-Alive\n\n").unwrap().keep);
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHo"), Ok(None));
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        let long = format!("GET /{} HTTP/1.1\nHost: a\n\n", "x".repeat(MAX_TARGET));
        let many = format!("GET / HTTP/1.1\nHost: a\n{}\n", "x: y\n".repeat(60));
        for (head, status) in [
            ("POST / HTTP/1.1\nHost: a\n\n", 405),
            ("get / HTTP/1.1\nHost: a\n\n", 405),
            ("GET / HTTP/2.0\nHost: a\n\n", 505),
            ("GET / HTTP/1.1\n\n", 400),
            ("GET / HTTP/1.1\nHost: a\nHost: b\n\n", 400),
            ("GET / HTTP/1.1\nHost: a\nContent-Length: 5\n\n", 400),
            ("GET / HTTP/1.1\nHost: a\nContent-Length: 0\nTransfer-Encoding: chunked\n\n", 400),
            ("GET / HTTP/1.1\nHost : a\n\n", 400),
            ("GET / HTTP/1.1\nHost: a\n folded\n\n", 400),
            ("GET / HTTP/1.1\nHost: a\nRange: bytes=0-1\nRange: bytes=2-3\n\n", 400),
            ("GET boot HTTP/1.1\nHost: a\n\n", 400),
            ("GET * HTTP/1.1\nHost: a\n\n", 400),
            (&long, 414),
            (&many, 431),
        ] {
            assert_eq!(get(head).expect_err(head).status, status, "{head}");
        }
        assert_eq!(parse(&[b'x'; MAX_HEAD]).expect_err("no end").status, 431);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(noise in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..80) {
            let _ = parse(&noise);
            let good = b"GET /boot/file/vmlinuz HTTP/1.1\r\nHost: 10.77.0.2\r\nRange: bytes=0-9\r\n\r\n";
            let mut mixed = good[..cut.min(good.len())].to_vec();
            mixed.extend_from_slice(&noise);
            if let Ok(Some((asked, length))) = parse(&mixed) {
                prop_assert!(length <= mixed.len() && asked.path.starts_with('/'));
            }
        }
    }
}
