//! What real clients sent, what hostile ones might, and what fuzzing found worth keeping: each seed and each piece of the
//! corpus of the fuzz targets, and each changed in many ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

/// Changes of each directory's seeds, all together.
const CHANGES: usize = 20_000;

/// Numbers that are the same at each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

fn change(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, numbers.below(256) as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            3 if at < bytes.len() => bytes[at] = [0, 0xff, b' ', b'\n', b'/', b'9'][numbers.below(6)],
            4 => bytes.extend_from_slice(&other[numbers.below(other.len())..]),
            _ => drop(bytes.drain(at..(at + numbers.below(16)).min(bytes.len()))),
        }
    }
    bytes
}

/// What lies in a directory of `pxe/fuzz`, sorted by name.
fn files(kind: &str, target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 3, "files in {}", dir.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn all(name: &str, target: fn(&[u8])) {
    let seeds = [files("seeds", name), files("corpus", name)].concat();
    seeds.iter().for_each(|seed| target(seed));
    let mut numbers = Numbers(1);
    for _ in 0..CHANGES {
        let (seed, other) = (numbers.below(seeds.len()), numbers.below(seeds.len()));
        target(&change(&seeds[seed], &seeds[other], &mut numbers));
    }
}

#[test]
fn dhcp_clients_are_answered_as_they_may_be() {
    all("dhcp4", dayzero_pxe::fuzzing::dhcp4);
}

#[test]
fn dhcpv6_clients_are_answered_as_they_may_be() {
    all("dhcp6", dayzero_pxe::fuzzing::dhcp6);
}

#[test]
fn frames_are_read_for_what_stands_in_them() {
    all("frames", dayzero_pxe::fuzzing::frames);
}

#[test]
fn dns_questions_are_survived_and_no_answer_is_much_longer() {
    all("dns", dayzero_pxe::fuzzing::dns);
}

#[test]
fn tftp_requests_are_survived_and_never_answered_twice() {
    all("tftp", dayzero_pxe::fuzzing::tftp);
}

#[test]
fn http_requests_are_survived_and_answered_within_the_file() {
    all("http", dayzero_pxe::fuzzing::http);
}
