//! The HTTP rows.

use super::Bench;
use super::http_client::{Ask, load};
use super::net::{as_client, client_command};
use super::ours::LARGE;
use crate::bench::row::{About, Ask as Wanted, RUNS, compare, median};
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::Duration;

const WARM: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1500);
const SIZE: u64 = 1 << 30;
/// Addresses that connections come from: of clients that nobody planned, more would be served in waves.
const MACHINES: usize = 16;
const PEERS: [&str; 1] = ["nginx"];

/// Runs of ours and of nginx, of one number of connections.
struct Case {
    connections: usize,
    /// GB/s, or answers/s.
    speed: [Vec<f64>; 2],
    /// CPU seconds per GB.
    cpu: [Vec<f64>; 2],
}

/// Measures what is asked for.
pub fn rows(bench: &mut Bench) {
    bench.attempt("http.file", file);
    bench.attempt("http.range", range);
}

/// Measures what is asked for over TLS.
pub fn tls_rows(bench: &mut Bench) {
    bench.attempt("https.cpu", https);
}

/// Connections of the TLS row, each of one curl, and what each fetches.
const TLS_CLIENTS: usize = 8;
const TLS_BYTES: u64 = 256 << 20;

/// TLS 1.3 by curl, which costs more than any server: only the server's CPU time counts.
fn https(bench: &mut Bench) -> Result<()> {
    let mut cpu = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (i, name) in std::iter::once("ours").chain(PEERS).enumerate() {
            let (wire, server) = (bench.wire(name)?, bench.server(name)?);
            let before = server.cpu()?;
            let mut clients = Vec::new();
            for n in 0..TLS_CLIENTS {
                let mut curl = client_command("curl");
                let source = wire.client(n).to_string();
                curl.args(["-sS", "-k", "--noproxy", "*", "--tlsv1.3", "--http1.1", "-f", "-o", "/dev/null"]);
                curl.args([
                    "--interface",
                    &source,
                    "-r",
                    &format!("0-{}", TLS_BYTES - 1),
                    "-w",
                    "%{size_download}",
                ]);
                curl.arg(format!("https://{}:8445/{LARGE}", wire.server));
                curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                clients.push(curl.spawn().context("starting curl")?);
            }
            for client in clients {
                let said = client.wait_with_output()?;
                let got = String::from_utf8_lossy(&said.stdout).into_owned();
                ensure!(
                    said.status.success() && got == TLS_BYTES.to_string(),
                    "{name}: curl got {got} bytes: {}",
                    String::from_utf8_lossy(&said.stderr)
                );
            }
            cpu[i].push((server.cpu()? - before) / ((TLS_CLIENTS as u64 * TLS_BYTES) as f64 / 1e9));
        }
    }
    let what = "TLS 1.3, AES-128-GCM, 8 connections of curl, handshakes included: server CPU".to_owned();
    let peer = [(PEERS[0].to_owned(), cpu[1].clone())];
    bench.push(compare(
        About { id: "https.cpu", what, unit: "s/GB" },
        &cpu[0],
        &peer,
        Wanted::AtMost(1.0),
        true,
    )?);
    Ok(())
}

fn case(bench: &Bench, connections: usize, range: Option<(u64, u64)>) -> Result<Case> {
    let mut case = Case { connections, speed: Default::default(), cpu: Default::default() };
    for _ in 0..RUNS {
        for (i, name) in std::iter::once("ours").chain(PEERS).enumerate() {
            let (wire, server) = (bench.wire(name)?, bench.server(name)?);
            let ask = Ask { server: wire.server, path: LARGE, range };
            let sources: Vec<_> = (0..connections).map(|n| wire.client(n % MACHINES)).collect();
            let mut cpu = Vec::new();
            let done = as_client(|| {
                load(&ask, &sources, (WARM, MEASURED), || {
                    cpu.push(server.cpu()?);
                    Ok(())
                })
            });
            let done = done.with_context(|| format!("{name}, {connections} connections"))?;
            let per_second = if range.is_some() { done.answers as f64 } else { done.bytes as f64 / 1e9 };
            case.speed[i].push(per_second / done.seconds);
            case.cpu[i].push((cpu[1] - cpu[0]) / (done.bytes as f64 / 1e9));
        }
    }
    let (speed, cpu) = (case.speed.each_ref().map(|v| median(v)), case.cpu.each_ref().map(|v| median(v)));
    bench.say(&format!(
        "{connections} connections{}: ours {:.2} nginx {:.2} {}, {:.3} and {:.3} CPU s/GB",
        if range.is_some() { ", ranges" } else { "" },
        speed[0],
        speed[1],
        if range.is_some() { "answers/s" } else { "GB/s" },
        cpu[0],
        cpu[1]
    ));
    Ok(case)
}

/// The whole file; the number of connections at which ours compares worst is what counts.
fn file(bench: &mut Bench) -> Result<()> {
    let cases = [1, 8, 64].iter().map(|n| case(bench, *n, None)).collect::<Result<Vec<_>>>()?;
    let ratio = |pair: &[Vec<f64>; 2]| median(&pair[0]) / median(&pair[1]);
    let worst = |by: &dyn Fn(&Case) -> f64| cases.iter().max_by(|a, b| by(a).total_cmp(&by(b)));
    let costly = worst(&|case| ratio(&case.cpu)).context("no case")?;
    let slow = worst(&|case| -ratio(&case.speed)).context("no case")?;
    let what = |case: &Case| {
        format!(
            "1 GiB file, worst of 1, 8 and 64 connections (of at most {MACHINES} clients): {}",
            case.connections
        )
    };
    let peer = |runs: &[Vec<f64>; 2]| [(PEERS[0].to_owned(), runs[1].clone())];
    let about = About { id: "http.file", what: format!("{}; server CPU", what(costly)), unit: "s/GB" };
    let cpu = compare(about, &costly.cpu[0], &peer(&costly.cpu), Wanted::AtMost(1.0), true)?;
    let about = About { id: "http.file.speed", what: what(slow), unit: "GB/s" };
    let speed = compare(about, &slow.speed[0], &peer(&slow.speed), Wanted::AtLeast(1.0), true)?;
    bench.push(cpu);
    bench.push(speed);
    Ok(())
}

/// Ranges of 64 KiB at random places.
fn range(bench: &mut Bench) -> Result<()> {
    let case = case(bench, 64, Some((64 << 10, SIZE)))?;
    let about =
        About { id: "http.range", what: "ranges of 64 KiB, 64 connections".to_owned(), unit: "answers/s" };
    let peer = [(PEERS[0].to_owned(), case.speed[1].clone())];
    bench.push(compare(about, &case.speed[0], &peer, Wanted::AtLeast(1.5), true)?);
    Ok(())
}
