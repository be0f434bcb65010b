//! TFTP packets as bytes (RFC 1350, option lists of RFC 2347).
//!
//! Purpose: turn a datagram into a typed request, acknowledgement or error, and write the four packets that a
//! read-only server sends. Invariants: parsing never allocates more than the datagram is long, looks at a bounded
//! number of options, and never panics. It judges syntax only: what a value may be is `negotiate`'s business.

use std::fmt;

/// Longest request that is looked at (RFC 2347: a request packet has at most 512 octets).
pub(crate) const MAX_REQUEST: usize = 512;
/// Most options of one request that are looked at; EDK2, the chattiest client known, sends four.
pub(crate) const MAX_OPTIONS: usize = 16;
/// Bytes before the data in a DATA packet.
pub(crate) const DATA_HEADER: usize = 4;

const OP_RRQ: u16 = 1;
const OP_WRQ: u16 = 2;
const OP_DATA: u16 = 3;
const OP_ACK: u16 = 4;
const OP_ERROR: u16 = 5;
const OP_OACK: u16 = 6;

/// Error codes of RFC 1350 and RFC 2347.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 0: see the message.
    Undefined,
    /// 1: no such file.
    NotFound,
    /// 2: access violation.
    AccessViolation,
    /// 4: illegal operation.
    IllegalOperation,
    /// 8: options refused (RFC 2347).
    OptionRefused,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    pub fn wire(self) -> u16 {
        match self {
            ErrorCode::Undefined => 0,
            ErrorCode::NotFound => 1,
            ErrorCode::AccessViolation => 2,
            ErrorCode::IllegalOperation => 4,
            ErrorCode::OptionRefused => 8,
        }
    }
}

/// Why a request is answered by an error packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code sent.
    pub code: ErrorCode,
    /// The text sent; never holds a path of the server.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code.wire())
    }
}

/// A read request, split but not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The file's name as sent (printable ASCII).
    pub name: String,
    /// Name (lower case) and value of each option, in order; none twice.
    pub options: Vec<(String, String)>,
}

/// What arrived at the port of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Acknowledges a block (0: the OACK).
    Ack(u16),
    /// The client gives up, with code and printable message.
    Error(u16, String),
    /// Anything else; ignored.
    Other,
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]))
}

/// Keeps what can be shown on a terminal or in a log, at most `max` characters.
pub(crate) fn printable(bytes: &[u8], max: usize) -> String {
    bytes.iter().take(max).map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' }).collect()
}

/// Reads a datagram that arrived at the listening port.
///
/// `Ok(None)`: no request at all (a stray ACK or DATA): answer nothing, so that nobody is used as a reflector.
/// `Err`: a request that must be answered by an error packet.
pub fn parse_request(packet: &[u8]) -> Result<Option<ReadRequest>, Refusal> {
    let refuse = |code, text: &str| Err(Refusal::new(code, text));
    match word(packet, 0) {
        Some(OP_RRQ) => {}
        Some(OP_WRQ) => return refuse(ErrorCode::AccessViolation, "this server is read-only"),
        _ => return Ok(None),
    }
    if packet.len() > MAX_REQUEST {
        return refuse(ErrorCode::IllegalOperation, "request longer than 512 bytes");
    }
    let Some(body) = packet[2..].strip_suffix(&[0]) else {
        return refuse(ErrorCode::IllegalOperation, "request does not end with a zero byte");
    };
    let mut fields = Vec::new();
    for field in body.split(|b| *b == 0) {
        if fields.len() >= 2 + 2 * MAX_OPTIONS {
            return refuse(ErrorCode::OptionRefused, "too many options");
        }
        if !field.iter().all(|b| (0x20..0x7f).contains(b)) {
            return refuse(
                ErrorCode::IllegalOperation,
                "request holds a character that is not printable ASCII",
            );
        }
        fields.push(String::from_utf8_lossy(field).into_owned());
    }
    let mut fields = fields.into_iter();
    let (Some(name), Some(mode)) = (fields.next(), fields.next()) else {
        return refuse(ErrorCode::IllegalOperation, "request without a mode");
    };
    if !mode.eq_ignore_ascii_case("octet") {
        let text = if mode.eq_ignore_ascii_case("netascii") {
            "netascii is not served: ask for mode octet"
        } else {
            "unknown mode: ask for mode octet"
        };
        return refuse(ErrorCode::IllegalOperation, text);
    }
    let mut options: Vec<(String, String)> = Vec::new();
    while let Some(option) = fields.next() {
        let Some(value) = fields.next() else {
            return refuse(ErrorCode::OptionRefused, "an option has no value");
        };
        let option = option.to_ascii_lowercase();
        if option.is_empty() {
            return refuse(ErrorCode::OptionRefused, "an option has no name");
        }
        if options.iter().any(|(known, _)| *known == option) {
            return refuse(ErrorCode::OptionRefused, "an option is given twice");
        }
        options.push((option, value));
    }
    Ok(Some(ReadRequest { name, options }))
}

/// Reads a datagram that arrived at a transfer's own port.
pub fn parse_incoming(packet: &[u8]) -> Incoming {
    match (word(packet, 0), word(packet, 2)) {
        (Some(OP_ACK), Some(block)) => Incoming::Ack(block),
        (Some(OP_ERROR), Some(code)) => {
            let text = packet[4..].split(|b| *b == 0).next().unwrap_or_default();
            Incoming::Error(code, printable(text, 120))
        }
        _ => Incoming::Other,
    }
}

/// An ERROR packet.
pub(crate) fn error_packet(code: u16, message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + message.len());
    out.extend_from_slice(&OP_ERROR.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend(message.bytes().filter(|b| *b != 0));
    out.push(0);
    out
}

/// An OACK packet of the accepted options.
pub(crate) fn oack_packet(options: &[(&'static str, u64)]) -> Vec<u8> {
    let mut out = OP_OACK.to_be_bytes().to_vec();
    for (name, value) in options {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(0);
    }
    out
}

/// The bytes before a DATA packet's data.
pub(crate) fn data_header(block: u16) -> [u8; DATA_HEADER] {
    let ([op_high, op_low], [high, low]) = (OP_DATA.to_be_bytes(), block.to_be_bytes());
    [op_high, op_low, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rrq(fields: &[&str]) -> Vec<u8> {
        let mut out = vec![0, 1];
        for field in fields {
            out.extend_from_slice(field.as_bytes());
            out.push(0);
        }
        out
    }

    #[test]
    fn reads_what_real_clients_send() {
        let ovmf = rrq(&["snponly.efi", "octet", "tsize", "0", "blksize", "1468", "windowsize", "4"]);
        let got = parse_request(&ovmf).unwrap().unwrap();
        assert_eq!(got.name, "snponly.efi");
        assert_eq!(got.options.len(), 3);
        assert_eq!(got.options[2], ("windowsize".into(), "4".into()));
        let shouting = rrq(&["a", "OCTET", "BLKSIZE", "1432"]);
        assert_eq!(parse_request(&shouting).unwrap().unwrap().options[0].0, "blksize");
    }

    #[test]
    fn refuses_clearly() {
        let many: Vec<String> = (0..40).map(|i| format!("o{i}")).collect();
        let mut long = vec!["f", "octet"];
        long.extend(many.iter().map(String::as_str));
        let cases: Vec<(Vec<u8>, u16, &str)> = vec![
            (rrq(&["f", "netascii"]), 4, "netascii"),
            (rrq(&["f", "mail"]), 4, "unknown mode"),
            (rrq(&["f"]), 4, "without a mode"),
            (b"\0\x01f\0octet".to_vec(), 4, "zero byte"),
            (b"\0\x02f\0octet\0".to_vec(), 2, "read-only"),
            (rrq(&["f", "octet", "blksize"]), 8, "no value"),
            (rrq(&["f", "octet", "", "1"]), 8, "no name"),
            (rrq(&["f", "octet", "blksize", "8", "BlkSize", "9"]), 8, "twice"),
            (rrq(&long), 8, "too many"),
            (rrq(&["f\x1b[2J", "octet"]), 4, "printable"),
            (rrq(&[&"x".repeat(600), "octet"]), 4, "512"),
        ];
        for (packet, code, text) in cases {
            let refusal = parse_request(&packet).expect_err(text);
            assert_eq!(refusal.code.wire(), code, "{refusal}");
            assert!(refusal.message.contains(text), "{refusal} lacks {text}");
        }
    }

    #[test]
    fn stray_packets_are_not_answered() {
        for packet in [&b""[..], b"\0", b"\0\x04\0\x01", b"\0\x05\0\0x\0", b"\0\x03\0\x01abc", b"\xff\xff"] {
            assert_eq!(parse_request(packet), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_survived(packet in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = parse_request(&packet);
            let _ = parse_incoming(&packet);
            let mut forced = packet.clone();
            if forced.len() >= 2 { forced[0] = 0; forced[1] = 1; }
            if let Ok(Some(request)) = parse_request(&forced) {
                prop_assert!(request.options.len() <= MAX_OPTIONS);
                prop_assert!(request.name.is_ascii());
            }
        }
    }
}
