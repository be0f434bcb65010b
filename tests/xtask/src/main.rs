//! `cargo xtask …`: everything that the project does to itself. Small on purpose: it must start, check the machine and
//! say what is missing before anything large is built.

mod bench;
mod build;
mod demo;
mod faults;
mod fuzz;
mod image;
mod labs;
mod packages;
mod paths;
mod phases;
mod preflight;
mod secrets;
mod shell;
mod test;
mod workspace;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "xtask", about = "Dayzero's own tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Day zero, end to end, on a virtual rack; leaves it running until Ctrl-C or --stop
    Demo(demo::DemoArgs),
    /// What must pass at each commit
    Test(test::TestArgs),
    /// Build kernel, discovery image, KVM host image and the demo's guest template
    Images,
    /// Play each fault that stops a host in the virtual rack, mend it, and see the host carry on
    Faults(faults::FaultsArgs),
    /// Fuzz what reads the boot network's datagrams, for a bounded time
    Fuzz(fuzz::FuzzArgs),
    /// Build the appliance's disk image
    Image {
        /// Where to put it [default: dayzero-appliance.raw in the target directory]
        #[arg(long)]
        output: Option<PathBuf>,
        /// Start a copy by BIOS and by UEFI, and judge what it shows
        #[arg(long)]
        check: bool,
    },
    /// Measure, beside the peers, in one run
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Faults(args) => faults::run(&args),
        Task::Fuzz(args) => preflight::run().and_then(|()| fuzz::run(&args)),
        Task::Images => preflight::run().and_then(|()| build::images()).map(|images| {
            println!("{images:#?}");
            ExitCode::SUCCESS
        }),
        Task::Bench(args) => bench::run(&args),
        Task::Image { output, check } => image::run(output, check),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
