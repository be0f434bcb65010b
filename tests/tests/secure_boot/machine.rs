//! A machine whose firmware enforces Secure Boot, with keys of our choice.

use crate::site::{MAC, PATIENCE, Site, must};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// Owner of our entries in the firmware's lists.
const OWNER: &str = "da7ae005-0000-4000-8000-000000000001";

/// Whom the firmware trusts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    /// The site alone: PK, KEK and db.
    Site,
    /// Microsoft, as servers are delivered.
    Microsoft,
    /// Microsoft, and shim trusts the site as the machine's owner.
    MicrosoftAndOwner,
}

/// How it boots.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Firmware {
    Pxe,
    Http,
}

/// A running machine; its process ends when dropped.
pub(crate) struct Machine {
    child: Child,
    console: PathBuf,
    start: Instant,
}

fn variables(site: &Site, keys: Keys) -> PathBuf {
    let out = site.dir.path().join("vars.fd");
    let certificate = site.certificate();
    let (empty, microsoft) = ("/usr/share/OVMF/OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd");
    let (base, options): (_, &[&str]) = match keys {
        Keys::Site => (empty, &["--set-pk", "--add-kek", "--add-db"]),
        Keys::Microsoft => (microsoft, &[]),
        Keys::MicrosoftAndOwner => (microsoft, &["--add-mok"]),
    };
    if options.is_empty() {
        fs::copy(base, &out).expect("apt-get install ovmf");
        return out;
    }
    let program = std::env::var("DAYZERO_VIRT_FW_VARS").expect(
        "DAYZERO_VIRT_FW_VARS: virt-firmware's virt-fw-vars; `cargo xtask test --lab secure_boot` makes it",
    );
    let mut command = Command::new(program);
    command.args(["-i", base, "-o"]).arg(&out);
    for option in options {
        command.args([option, OWNER]).arg(&certificate);
    }
    let done = command.arg("--sb").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    out
}

impl Machine {
    pub(crate) fn start(site: &Site, firmware: Firmware, keys: Keys) -> Self {
        let (dir, netns) = (site.dir.path(), &site.netns);
        let variables = variables(site, keys);
        must(&format!("ip -n {netns} tuntap add t0 mode tap; ip -n {netns} link set t0 master mgmt0 up"));
        let console = dir.join("console");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns, "qemu-system-x86_64", "-nodefaults", "-display", "none"]);
        command.args(["-vga", "none", "-machine", "q35,smm=on", "-accel", "tcg", "-cpu", "max", "-m", "768"]);
        command.args(["-global", "driver=cfi.pflash01,property=secure,value=on", "-no-reboot"]);
        command.args(["-global", "ICH9-LPC.disable_s3=1"]);
        command.args(["-serial", &format!("file:{}", console.display())]);
        command.args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={CODE}")]);
        command.args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", variables.display())]);
        command.args(["-netdev", "tap,id=n0,ifname=t0,script=no,downscript=no"]);
        // Without an option ROM: QEMU's is an unsigned iPXE, which it runs all the same.
        command.args(["-device", &format!("virtio-net-pci,netdev=n0,mac={MAC},bootindex=1,romfile=")]);
        let off: &[&str] = match firmware {
            Firmware::Pxe => &["6"],
            Firmware::Http => &["4", "6"],
        };
        for version in off {
            command.args(["-fw_cfg", &format!("name=opt/org.tianocore/IPv{version}PXESupport,string=n")]);
        }
        let errors = fs::File::create(dir.join("qemu.err")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        Self { child, console, start: Instant::now() }
    }

    pub(crate) fn console(&self) -> String {
        read(&self.console)
    }

    /// Waits until the console shows a text; seconds since the start.
    pub(crate) fn says(&mut self, text: &str, site: &Site) -> f64 {
        loop {
            let said = self.console();
            if said.contains(text) {
                return self.start.elapsed().as_secs_f64();
            }
            let ended = self.child.try_wait().unwrap();
            let over = ended.is_some() || self.start.elapsed() > PATIENCE;
            let events = if over { site.show() } else { String::new() };
            let errors = if over { read(&site.dir.path().join("qemu.err")) } else { String::new() };
            assert!(!over, "no {text:?} (process: {ended:?} {errors}); console:\n{said}\nevents:\n{events}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
