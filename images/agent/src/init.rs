//! PID 1 of the discovery image and of the appliance: mounts, modules, reaping; then the discovery itself, or, where the
//! kernel's command line names the appliance's partition of boot files, [`appliance`]. It never ends: a PID 1 that ends is
//! a kernel panic, so a failure is printed and the machine restarts after a minute.

pub mod appliance;

use crate::{cmdline, console, discovery, kmod};
use nix::mount::MsFlags;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Modules that no device asks for by its modalias.
const ALWAYS: [&str; 14] = [
    "crc32c_intel",
    // ext4 and btrfs ask for crc32c by name, which no device does.
    "crc32c_generic",
    "virtio_pci",
    "sd_mod",
    "sr_mod",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "efivarfs",
    "button",
    "evdev",
    "af_packet",
];

/// Runs as PID 1.
pub fn run() -> ExitCode {
    mount_all();
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if let Some(files) = cmdline::value(&cmdline, "files") {
        start_log(tracing::Level::WARN);
        load_modules();
        return appliance::run(files);
    }
    console::print(&format!("dayzero-agent {} starts", env!("CARGO_PKG_VERSION")));
    start_log(tracing::Level::INFO);
    load_modules();
    std::thread::spawn(reap);
    let failure = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(tokio::task::LocalSet::new().run_until(discovery::run())) {
            Ok(never) => match never {},
            Err(error) => format!("{error:#}"),
        },
        Err(error) => format!("runtime: {error}"),
    };
    console::print(&format!("dayzero-agent: {failure}"));
    console::print("dayzero-agent: this machine restarts in 60 s");
    std::thread::sleep(Duration::from_secs(60));
    restart();
    ExitCode::FAILURE
}

/// Flushes what is to be written and restarts the machine by the kernel.
pub fn restart() {
    nix::unistd::sync();
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
}

fn mount_all() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for (kind, target, flags) in [
        ("proc", "/proc", flags | MsFlags::MS_NODEV),
        ("sysfs", "/sys", flags | MsFlags::MS_NODEV),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID),
        ("tmpfs", "/run", flags | MsFlags::MS_NODEV),
        ("tmpfs", "/tmp", flags | MsFlags::MS_NODEV),
    ] {
        let _ = std::fs::create_dir_all(target);
        if let Err(error) = nix::mount::mount(Some(kind), target, Some(kind), flags, None::<&str>) {
            // Without /dev there is no console to say it on; the kernel mounts it where CONFIG_DEVTMPFS_MOUNT is set.
            console::print(&format!("dayzero-agent: mount {target}: {error}"));
        }
    }
    // The links that every program takes for granted; devtmpfs has none (hier(7)).
    for (link, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")]
        .map(|(link, end)| (link, format!("/proc/self/fd{end}")))
    {
        if let Err(error) = std::os::unix::fs::symlink(target, Path::new("/dev").join(link)) {
            console::print(&format!("dayzero-agent: link /dev/{link}: {error}"));
        }
    }
}

fn load_modules() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut modules = kmod::Modules::open(&Path::new("/lib/modules").join(release.trim()));
    let mut problems = modules.load_for_devices();
    problems.extend(ALWAYS.iter().flat_map(|name| modules.load(name)));
    problems.extend(modules.load_for_devices());
    for problem in problems {
        tracing::warn!("{problem}");
    }
    if Path::new("/sys/firmware/efi/efivars").exists() {
        let target = "/sys/firmware/efi/efivars";
        if let Err(error) =
            nix::mount::mount(Some("efivarfs"), target, Some("efivarfs"), MsFlags::MS_NOSUID, None::<&str>)
        {
            tracing::warn!("mount {target}: {error}");
        }
    }
}

/// Logs go to the console, one plain line each.
fn start_log(level: tracing::Level) {
    let open = || -> Box<dyn std::io::Write> {
        match std::fs::OpenOptions::new().write(true).open("/dev/console") {
            Ok(file) => Box::new(file),
            Err(_) => Box::new(std::io::sink()),
        }
    };
    let _ = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .with_writer(open)
        .try_init();
}

/// Orphans end up with PID 1; only those that tokio does not wait for are left, and PID 1 of the image starts none of
/// its own. So each child is collected by id only after a second as a zombie.
fn reap() {
    loop {
        std::thread::sleep(Duration::from_secs(5));
        while let Ok(status) = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            if status == nix::sys::wait::WaitStatus::StillAlive {
                break;
            }
        }
    }
}
