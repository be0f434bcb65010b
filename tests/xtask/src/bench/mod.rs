//! `cargo xtask bench NAME`: ours and the peers, interleaved, in one run.
//!
//! `row` is the form of a result and the judgement of an ask; each other module is one bench. The exit code is 1 if
//! something could not be measured; an ask that is not held is shown, and is no error of the run.

mod demo;
mod pxe;
mod row;
mod store;

use anyhow::{Result, bail};
use clap::Args;
use row::Row;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct BenchArgs {
    /// `store`, `demo` or `pxe`
    name: String,
    /// Write the rows as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// Only rows whose id begins so (`pxe` alone)
    #[arg(long, default_value = "")]
    only: String,
}

/// What a bench has to say.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    /// Ids that could not be measured, and why.
    failed: Vec<(String, String)>,
}

/// Runs one bench.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let plain = |rows| Results { rows, failed: Vec::new() };
    let results = match args.name.as_str() {
        "store" => plain(store::rows()?),
        "demo" => plain(demo::rows()?),
        "pxe" => pxe::rows(&args.only)?,
        other => bail!("there is no bench '{other}': use 'store', 'demo' or 'pxe'"),
    };
    row::print(&results.rows);
    for (id, why) in &results.failed {
        println!("{id}: NOT MEASURED: {why}");
    }
    if let Some(file) = &args.report {
        let failed: Vec<_> =
            results.failed.iter().map(|(id, why)| serde_json::json!({"id": id, "why": why})).collect();
        let report = serde_json::json!({"schema": 1, "rows": results.rows, "failed": failed});
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(if results.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
