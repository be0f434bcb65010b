//! Builds one image by hand: `cargo run -p dayzero-images --example build -- kernel|discovery|uki|host|tiny|disk|appliance …`.

use anyhow::{Context as _, bail};
use dayzero_images::{Cache, Flavour, Packing};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    let mut out = std::io::stdout();
    let cache = Cache::of_user(Arc::new(move |image, what| {
        let _ = writeln!(std::io::stderr(), "{:6.1} s  {image}: {what}", started.elapsed().as_secs_f64());
    }))?;
    let args: Vec<_> = std::env::args().skip(1).collect();
    let agent = || args.get(1).map(Path::new).context("name the agent's binary");
    match args.first().map(String::as_str) {
        Some("kernel") => writeln!(out, "{:#?}", dayzero_images::build_kernel(&cache, Flavour::Server)?)?,
        Some("discovery") => {
            let packing =
                if args.get(2).is_some_and(|a| a == "small") { Packing::Small } else { Packing::Quick };
            writeln!(out, "{:#?}", dayzero_images::build_discovery(&cache, agent()?, packing)?)?;
        }
        Some("uki") => {
            let discovery = dayzero_images::build_discovery(&cache, agent()?, Packing::Quick)?;
            let (kernel, cmdline) = (&discovery.kernel.vmlinuz, dayzero_images::SECURE_CMDLINE);
            writeln!(out, "{:#?}", dayzero_images::build_uki(&cache, kernel, &discovery.initrd, cmdline)?)?;
        }
        Some("host") => {
            let host = dayzero_images::build_host(&cache, agent()?)?;
            writeln!(
                out,
                "{}\n{} chunks, {} bytes packed",
                host.directory.display(),
                host.chunks,
                host.packed
            )?;
        }
        Some("disk") => {
            let host = dayzero_images::build_host(&cache, agent()?)?;
            let path = args.get(2).map(Path::new).context("name the disk image to write")?;
            dayzero_images::write_trial_disk(&host, 1, path)?;
        }
        Some("tiny") => writeln!(out, "{:#?}", dayzero_images::build_template_tiny(&cache)?)?,
        Some("appliance") => {
            let dayzero = args.get(2).map(Path::new).context("name the dayzero binary")?;
            let discovery = dayzero_images::build_discovery(&cache, agent()?, Packing::Quick)?;
            let host = dayzero_images::build_host(&cache, agent()?)?;
            let template = dayzero_images::build_template_tiny(&cache)?;
            let parts = dayzero_images::Parts {
                dayzero,
                agent: agent()?,
                discovery: &discovery,
                host: &host,
                template: &template,
                data_bytes: 3 << 30,
            };
            writeln!(out, "{:#?}", dayzero_images::build_appliance(&cache, &parts)?)?;
        }
        _ => bail!(
            "say what to build: kernel, discovery AGENT [small], uki AGENT, host AGENT, tiny, disk AGENT OUT, or appliance AGENT DAYZERO"
        ),
    }
    writeln!(out, "{:.1} s", started.elapsed().as_secs_f64())?;
    Ok(())
}
